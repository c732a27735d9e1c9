#!/usr/bin/python3
"""Follow guides: run the commands of their blocks in order, and compare what they print with what the guides show.

    tests/with_daemon tests/guide_sessions.py

Commands that need systemd, packages or another user are left out. A guide's output is compared loosely: its lines must
be printed in this order, among others, with other times, sizes and paths.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
PATIENCE_S = 60
COMMANDS_MIN = 25

# What is run: the first word of each command of a pipe. No command here changes the machine.
RUN = {"kvctl", "kvstored", "mkdir", "printf", "export", "until", "kill", "grep", "zstd", "jq"}
LEFT_OUT = ("kvctl config nats.server_binary",)  # with_daemon sets it

# What a reader has done before. first-hour.md ends with a program that writes the key greeting.
BEFORE = {"backup.md": "kvctl put demo greeting hello; kvctl add config; kvctl mput config a=1 b=2; "
                       "kvctl put config port 8080; kvctl put config port 8081"}
# The buckets must be absent for a restore, and what is in a comment beside the commands is one of them.
BEFORE_COMMAND = {"kvctl restore $work/backups/": "kvctl rm config; kvctl rm demo",
                  "zstd -dc config.jsonl.zst": "kvctl export config | zstd >config.jsonl.zst"}


def fail(sentence):
    sys.exit(f"guide_sessions: {sentence}")


def blocks_of(path):
    """Return the indented blocks, each as (line number, lines)."""
    blocks, before = [], ""
    for number, line in enumerate(path.read_text().split("\n"), 1):
        if line.startswith("    ") and before.startswith("    "):
            blocks[-1][1].append(line[4:])
        elif line.startswith("    ") and not before:
            blocks.append((number, [line[4:]]))
        before = line
    return blocks


def split_block(lines):
    """Return (command, shown lines) of a block, or only (None, lines) if it has no command."""
    if lines[0].startswith("kvctl "):
        return [(line, []) for line in lines]
    parts, is_continued = [], False
    for line in lines:
        if is_continued:
            parts[-1] = (parts[-1][0] + "\n" + line, [])
        elif line[:2] in ("$ ", "# "):
            parts.append((line[2:], []))
        elif parts:
            parts[-1][1].append(line)
        else:
            return [(None, lines)]
        is_continued = line.endswith("\\")
    return parts


def pattern_of(line):
    """Return what is loosely the line."""
    pattern = re.escape(re.sub(r"\s+", " ", line.strip()))
    pattern = re.sub(r"\d{4}\\-\d\d\\-\d\d\\ [\d:]+(\\\.\d+)?", r"[-0-9]+ [0-9:.]+", pattern)
    pattern = re.sub(r"(?<![\w.\[])\d+(\\\.\d+)?\\ (us|B)\b", r"[0-9.]+ \\w+", pattern)
    pattern = re.sub(r"127\\\.0\\\.0\\\.1:\d+", r"127.0.0.1:[0-9]+", pattern)
    return re.sub(r"(?<=\\ )/\S+?(?=\\ |$)", r"\\S+", pattern)


def shows(printed, wanted):
    """Return the first wanted line that is not printed after those before it, or None."""
    lines = iter([re.sub(r"\s+", " ", line.strip()) for line in printed.splitlines()])
    for line in wanted:
        if line.strip() != "..." and not any(re.fullmatch(pattern_of(line), printed_line) for printed_line in lines):
            return line
    return None


class Reader:
    """Somebody who follows guides in a directory, whose kvctl speaks to the daemon of with_daemon."""

    def __init__(self, work):
        self.work = work
        build = ROOT / os.environ.get("BUILD", "build/asan")
        self.server = (ROOT / "build/nats-server.path").read_text().strip()
        self.environment = {**os.environ, "PATH": f"{build}:{os.environ['PATH']}", "work": str(work),
                            "KVSTORED_SOCKET": str(ROOT / os.environ["KVSTORED_SOCKET"])}
        self.watch = None
        self.count = 0

    def place(self, command):
        for there, here in (("/var/backups", "$work/backups"), ("/tmp/rehearsal", "$work/rehearsal"),
                            ("/usr/lib/kvstored/nats-server", self.server)):
            command = command.replace(there, here)
        command = re.sub(r"kvstored-\d{4}-\d\d-\d\d", "kvstored-then", command)  # all of them are one backup
        return command.replace("'  path: $work", "\"  path: $work\"'").replace("'  data_dir: $work", "\"  data_dir: $work\"'")

    def run_block(self, where, parts):
        """Run the commands in one shell, as it may be that they use its directory, its variables and its jobs."""
        script, run = [], []
        for command, wanted in parts:
            bare = re.split(r"\s+# ", command)[0]
            words = {part.split()[0] for part in re.split(r"\s\|\s", bare)}
            if words - RUN or command.startswith(LEFT_OUT) or any("Permission denied" in line for line in wanted):
                continue
            command = self.place(command)
            if command.startswith("kvctl watch "):
                self.start_watch(where, command, wanted)
                continue
            script += [before for start, before in BEFORE_COMMAND.items() if command.startswith(start)]
            script += ["printf '\\001'", command, "printf '\\002'"]
            run.append((command, wanted))
        done = subprocess.run(["bash", "-c", "\n".join(script)], cwd=self.work, env=self.environment, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10 * PATIENCE_S)
        printed = re.findall("\001(.*?)\002", done.stdout, re.S)
        if len(printed) != len(run):
            fail(f"{where}: {done.stdout!r}")
        for (command, wanted), output in zip(run, printed):
            missing = shows(output, wanted)
            if missing or (not wanted and re.search("kvctl: |cannot", output)):
                fail(f"{where}: {command}: prints {output!r}, without {missing!r}")
            self.count += 1

    def start_watch(self, where, command, wanted):
        self.output = self.work / "watch"
        with open(self.output, "wb") as output:
            self.watch = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=self.work, env=self.environment,
                                          stdout=output, stderr=subprocess.STDOUT)
        self.count += 1
        self.expect_of_watch(where, wanted)

    def expect_of_watch(self, where, wanted):
        end = time.monotonic() + PATIENCE_S
        while shows(self.output.read_text(), wanted):
            if time.monotonic() > end:
                fail(f"{where}: the watch prints {self.output.read_text()!r}, not {wanted}")
            time.sleep(0.02)

    def follow(self, path):
        subprocess.run(["bash", "-c", BEFORE.get(path.name, "")], env=self.environment, check=True,
                       stdout=subprocess.DEVNULL)
        for number, lines in blocks_of(path):
            where, parts = f"{path.relative_to(ROOT)}:{number}", split_block(lines)
            if parts[0][0] is not None and not any(line.lstrip().startswith("systemctl") for line in lines):
                self.run_block(where, parts)
            elif parts[0][0] is None and self.watch:
                self.expect_of_watch(where, lines)
                self.end_watch()

    def end_watch(self):
        if self.watch:
            self.watch.kill()
            self.watch.wait()
            self.watch = None


def main():
    work = pathlib.Path(tempfile.mkdtemp())
    reader = Reader(work)
    try:
        (work / "backups").mkdir()
        for name in ("first-hour.md", "backup.md"):
            reader.follow(ROOT / "docs/guides" / name)
    finally:
        reader.end_watch()
        shutil.rmtree(work)
    if reader.count < COMMANDS_MIN:
        fail(f"only {reader.count} commands were run: the guides are written in another way now")
    print(f"guide_sessions: {reader.count} commands: ok")


if __name__ == "__main__":
    main()
