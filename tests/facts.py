#!/usr/bin/env python3
"""Check that the documents agree with the code.

    tests/facts.py       print what differs; exit status 1 if anything does

1. A default of a setting, as `section.name` (VALUE) or as the second column of a table, is that of conf/settings.md.
2. A limit that is a constant in C, where a document gives its number, is that constant. LIMITS lists them.
3. A log message in docs/operations.md or docs/guides/troubleshooting.md exists in the code.
4. A file or a function that docs/architecture.md or CONTRIBUTING.md names exists, and a file that docs/performance.md
   or tests/README.md names.
5. A link to a file of the project, and to a section of it, leads somewhere.
6. CHANGELOG.md begins with the version of client/lib/kvstore.h.
7. Each piece of code in docs/clients.md is in a file of client/examples/clients. Its indentation may differ.

Run by tests/lint.
"""
import glob
import os
import re
import subprocess
import sys

from links import check_links, read

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/operations.md", "docs/monitoring.md", "docs/scaling.md",
             "docs/performance.md", "docs/architecture.md", "docs/clients.md", "proto/protocol.md",
             *sorted(os.path.relpath(path, ROOT) for path in glob.glob(os.path.join(ROOT, "docs/guides/*.md")))]

# Constant, document, and a pattern whose groups are its number. Each pattern must match.
LIMITS = [
    ("KV_BUCKET_LENGTH_MAX", "proto/protocol.md", r"name of a \*\*bucket\*\* has 1 to ([\d,]+)"),
    ("KV_KEY_LENGTH_MAX", "proto/protocol.md", r"A \*\*key\*\* has 1 to ([\d,]+)"),
    ("KV_FILTER_TOKENS_MAX", "proto/protocol.md", r"wildcards has at most ([\d,]+) tokens"),
    ("GLOB_LENGTH_MAX", "proto/protocol.md", r"filter \(at most ([\d,]+) characters\)"),
    ("PAIRS_MAX", "proto/protocol.md", r"It has at most ([\d,]+) members, and no name twice"),
    ("KEYS_MAX", "proto/protocol.md", r"A bulk call has at most \*\*([\d,]+)\*\* keys"),
    ("KEYS_MAX", "proto/protocol.md", r"\| ([\d,]+) \| \*\*Keys of a bulk call"),
    ("KEYS_MAX", "docs/operations.md", r"keys of a bulk call; [^|]*\| ([\d,]+);"),
    ("BATCH_MESSAGES_MAX", "proto/protocol.md", r"array of 1 to \*\*([\d,]+)\*\* of"),
    ("BATCH_MESSAGES_MAX", "proto/protocol.md", r"\| ([\d,]+) \| \*\*Operations of a transaction"),
    ("TXN_CHECKS_MAX", "proto/protocol.md", r"array of up to ([\d,]+) `\[key, revision\]`"),
    ("TXN_CHECKS_MAX", "proto/protocol.md", r"\| ([\d,]+) \| \*\*Checks of a transaction"),
    ("KV_HISTORY_MAX", "proto/protocol.md", r"values kept per key: 1 \(default\) to ([\d,]+)"),
    ("WATCH_FILTERS_MAX", "proto/protocol.md", r"str, or array of 1 to ([\d,]+) str"),
    ("KV_HEADER_ROOM_BYTES", "proto/protocol.md", r"with its headers and ([\d,]+) bytes for those of the daemon"),
    ("COMPACTIONS_MAX", "proto/protocol.md", r"\| ([\d,]+) \| \*\*Compactions of one session"),
    ("COMPACTIONS_MAX", "docs/operations.md", r"compactions [^|]*\| ([\d,]+) \|"),
    ("PAGE_KEYS_FREE", "proto/protocol.md", r"are more than ([\d,]+), and are more than"),
    ("PAIRS_MAX", "proto/protocol.md", r"`metadata` \| map of str to str, of at most ([\d,]+) members"),
    ("DESCRIPTION_BYTES_MAX", "proto/protocol.md", r"`description` \| str of at most ([\d,]+) bytes"),
    ("SETTINGS_LIST_MAX", "proto/protocol.md", r"`tags` \(array of at most ([\d,]+) str\)"),
    ("NAME_BYTES_MAX", "proto/protocol.md", r"`tags` [^|]*each has at most ([\d,]+) bytes"),
    ("SUBJECT_BYTES_MAX", "proto/protocol.md", r"A subject has at most ([\d,]+) bytes"),
    ("DOMAIN_BYTES_MAX", "proto/protocol.md", r"`domain` \(of JetStream, at most ([\d,]+) bytes"),
    ("AFTER_BYTES_MAX", "proto/protocol.md", r"the name `after` \(at most ([\d,]+) bytes"),
    ("SETTING_RULES_MAX", "conf/settings.md", r"There are at most ([\d,]+) rules"),
]


def list_files(*patterns):
    return subprocess.run(["git", "ls-files", *patterns], check=True, capture_output=True, text=True).stdout.split()


# --- Defaults ---------------------------------------------------------------------------------------------

def read_defaults():
    """Return the default of each setting that has one."""
    defaults, name = {}, None
    for line in read("conf/settings.md").split("\n"):
        if line.startswith("### "):
            name = line[4:]
        elif line.startswith("- default: "):
            defaults[name] = line[len("- default: "):]
    return defaults


def check_defaults(defaults):
    findings = []
    for path in DOCUMENTS:
        text = read(path)
        given = re.findall(r"^\| `(\w+\.\w+)` \| ([\d.]+[KMG]?)(?: s)? \|", text, re.M)
        given += re.findall(r"`(\w+\.\w+)` \(([\d.,]+[KMG]?)(?: s| seconds)?\)", re.sub(r"\s+", " ", text))
        for name, value in given:
            if name in defaults and value.replace(",", "") != defaults[name]:
                findings.append(f"{path}: {name} is {value}, and its default is {defaults[name]}")
    return findings


# --- Limits -----------------------------------------------------------------------------------------------

def read_constants():
    """Return the integer constants of the C sources by name: a set of values, because a name may occur twice."""
    constants = {}
    for path in list_files("daemon/*.[ch]", "conf/*.[ch]", "proto/*.[ch]"):
        for name, value in re.findall(r"^#define (\w+)\s+\(?(?:\(\w+\))?(\d+)u?l{0,2}\)?(?:\s|$)", read(path), re.M):
            constants.setdefault(name, set()).add(int(value))
    return constants


def check_limits(constants):
    findings = []
    for name, path, pattern in LIMITS:
        numbers = re.findall(pattern, re.sub(r"\s+", " ", read(path)))
        if not numbers:
            findings.append(f"{path}: does not match \"{pattern}\" for {name} any longer: update it or tests/facts.py")
        elif name not in constants:
            findings.append(f"tests/facts.py: there is no constant {name} any longer")
        for number in numbers:
            if name in constants and int(number.replace(",", "")) not in constants[name]:
                findings.append(f"{path}: {number} for {name}, which is {sorted(constants[name])}")
    return findings


# --- Log messages -----------------------------------------------------------------------------------------

# What stands for a value in a documented message, and in a format of printf.
PLACEHOLDER = r"…|\b(?:[A-Z]|URL|PROGRAM|ADDRESS|SUBJECT|SETTING|METHOD|NAME)\b"
FORMAT = r"%[-+ #0]*[\d*]*(?:\.[\d*]+)?(?:hh|h|ll|l|z|j|t)?[a-zA-Z]|\"\s*PRI\w+\s*\""


def read_strings():
    """Return the string literals of the daemon, adjacent ones joined and formats replaced by NUL, as one text."""
    strings = []
    for path in list_files("daemon/*.c", "conf/*.c", "proto/*.c"):
        for match in re.finditer(r'"(?:\\.|[^"\\\n])*"(?:\s*(?:PRI\w+\s*)?"(?:\\.|[^"\\\n])*")*', read(path)):
            joined = re.sub(r'"\s*"', "", re.sub(r'"\s*PRI\w+\s*"', "u", match.group()))
            strings.append(re.sub(FORMAT, "\0", joined).replace('\\"', '"'))
    return "\n".join(strings)


def check_message(path, message, strings):
    # Messages of nats-server itself are not in the code.
    if re.match(r"nats-server: ADDRESS|TTL state", message):
        return []
    # The code puts some messages together from parts.
    pieces = [piece.strip() for piece in re.split(PLACEHOLDER + r"|[:;,()\"/]|\d[\d.]*", message)]
    return [f"{path}: no message of the daemon contains \"{piece}\"" for piece in pieces
            if len(piece) > 3 and piece not in strings]


def check_messages(strings):
    text = read("docs/operations.md")
    section = text[text.index("\n## Log messages"):]
    section = section[:section.index("\n## ", 1)]
    findings = []
    for row in re.findall(r"^\| (`[^|]*) \|", section, re.M):
        for message in re.findall(r"`([^`]+)`", row):
            findings += check_message("docs/operations.md", message, strings)
    # There a line of the log follows the word log.
    path = "docs/guides/troubleshooting.md"
    lines = re.findall(r"[lL]og(?:, with `[^`]*`)?: ((?:`[^`]+`(?:, )?)+)", read(path))
    if len(lines) < 5:
        findings.append(f"{path}: has only {len(lines)} lines of the log: update it or tests/facts.py")
    for message in re.findall(r"`([^`]+)`", " ".join(lines)):
        findings += check_message(path, message, strings)
    return findings


# --- Names ------------------------------------------------------------------------------------------------

def check_names():
    files = list_files()
    words = set()
    for path in files:
        if path.endswith((".c", ".h", ".py")) or path == "Makefile":
            words.update(re.findall(r"\w+", read(path)))
    findings = []
    # Of the last two only files: they also name functions of the system.
    for path in ("docs/architecture.md", "CONTRIBUTING.md", "docs/performance.md", "tests/README.md"):
        for name in re.findall(r"`([\w./-]+)`", re.sub(r"```.*?```", "", read(path), flags=re.S)):
            name = name.strip("/")
            # Not names: a suffix, and words in capitals that stand for a name.
            if name.startswith(".") or re.search(r"[A-Z]{3}", name) and not name.endswith(".md"):
                continue
            if re.search(r"\.(?:c|h|py|md)$", name) or ("/" in name and not name.startswith(("build", "run", "."))):
                exists = any(file == name or file.endswith("/" + name) or file.startswith(name + "/") for file in files)
            elif path in ("docs/architecture.md", "CONTRIBUTING.md") and re.fullmatch(r"[a-z]+(?:_[a-z0-9]+)+", name):
                exists = name in words
            else:
                continue
            if not exists:
                findings.append(f"{path}: there is no {name}")
    return findings


# --- Version ----------------------------------------------------------------------------------------------

def check_version():
    version = ".".join(re.findall(r"^#define KVS_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", read("client/lib/kvstore.h"), re.M))
    newest = re.search(r"^## (\S+)", read("CHANGELOG.md"), re.M).group(1)
    return [] if newest == version else [f"CHANGELOG.md begins with {newest}, and client/lib/kvstore.h has {version}"]


# --- Code -------------------------------------------------------------------------------------------------

def strip_lines(text):
    """Return the text with each line stripped, so that it can be found at any indentation."""
    return "\n".join(["", *(line.strip() for line in text.strip().split("\n")), ""])


def check_code():
    path = "docs/clients.md"
    sources = [strip_lines(read(source)) for source in list_files("client/examples/clients/*")]
    pieces = re.findall(r"^ *```(?:js|go)\n(.*?)^ *```$", read(path), re.M | re.S)
    if len(pieces) < 5:
        return [f"{path}: has only {len(pieces)} pieces of code: update it or tests/facts.py"]
    return [f"{path}: no file of client/examples/clients has the code that begins with \"{piece.strip().splitlines()[0]}\""
            for piece in pieces if not any(strip_lines(piece) in source for source in sources)]


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    findings = check_defaults(read_defaults()) + check_limits(read_constants()) + check_messages(read_strings())
    findings += check_names() + check_links(list_files("*.md")) + check_version() + check_code()
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
