#!/usr/bin/env python3
"""Check that the commands in the documents exist.

    tests/guides.py KVCTL KVSTORED     print what is wrong; exit status 1 if anything is

For each command line in a code block or in `code` of DOCUMENTS:
1. The verb of kvctl exists, and each of its options is one of that verb, or one of all verbs.
2. The options of kvstored and the targets of make exist.

What the programs print as help is the truth. Run by tests/examples.
"""
import glob
import os
import re
import shlex
import subprocess
import sys

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md", "docs/guides/*.md", "conf/settings.md",
             "docs/monitoring/alerts.yml"]

# After these a command follows.
PREFIXES = {"sudo", "exec", "watch", "time", "!"}


def help_of(program, *arguments):
    return subprocess.run([program, *arguments, "--help"], check=True, capture_output=True, text=True).stdout


def options_in(text):
    """Return the options that a help lists, each with whether it takes a value."""
    return {name: bool(value) for name, value in re.findall(r"^\s*(?:-\w, )?--([a-z-]+)(?:[ =]([A-Z\[]\S*|on\|off))?",
                                                                  text, re.M)}


class Kvctl:
    """The verbs of kvctl and their options."""

    def __init__(self, program):
        text = help_of(program)
        listed = re.search(r"^Verbs.*?\n\n", text, re.M | re.S)
        self.options = options_in(text)
        self.verbs = {verb: options_in(help_of(program, verb))
                      for verb in re.findall(r"^  ([a-z]+) ", listed.group() if listed else "", re.M)}
        self.verbs["help"] = {}
        if len(self.verbs) < 20 or not self.options:
            sys.exit("tests/guides.py: kvctl --help does not list verbs and options as expected: update this file")

    def check(self, words):
        """Return what is wrong with a command line, or None. words are those after kvctl."""
        verb, known, expects_value = None, self.options, False
        options = []
        for word in words:
            if word == "--":
                break
            if expects_value:
                expects_value = False
            elif word.startswith("--"):
                name, _, value = word[2:].partition("=")
                options.append(name)
                # An option of a verb may stand before it, but in documents it never does.
                expects_value = known.get(name, False) and not value
            elif verb is None:
                # Capital letters stand for a word of the user's.
                if word.isupper() or word in ("…", "..."):
                    return None
                verb = word
                if verb not in self.verbs:
                    return f"kvctl has no verb {verb}"
                known = {**self.options, **self.verbs[verb]}
        for name in options:
            if name not in known:
                return f"kvctl {verb or ''} has no option --{name}"
        return None


def commands_in(path):
    """Return (line number, command line) of everything in the file that may be one."""
    found, fence = [], False
    with open(path, encoding="utf-8") as file:
        lines = file.read().split("\n")
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("```"):
            fence = not fence
        elif fence or line.startswith("    "):
            found.append((number, line.strip()))
        else:
            found += [(number, code) for code in re.findall(r"`([^`]+)`", line)]
    # A code in a paragraph may continue in the next line.
    for match in re.finditer(r"`([^`\n]+\n[^`\n|]+)`", re.sub(r"^(?: {4}.*|```.*)$", "", "\n".join(lines), flags=re.M)):
        found.append(("\n".join(lines).count("\n", 0, match.start()) + 1, match.group(1).replace("\n", " ")))
    return found


def split_commands(text):
    """Split a line into the words of its simple commands."""
    text = re.sub(r"^[$#] ", "", text)
    text = re.sub(r"[$](?=\()|[()]|\s#\s.*$", " ; ", text)
    # A quotation may begin or end in another line: then the quotes are of no help.
    for candidate in (text, text.replace("'", "").replace('"', "")):
        try:
            lexer = shlex.shlex(candidate, posix=True, punctuation_chars=";|&<>")
            lexer.whitespace_split, lexer.commenters = True, ""
            words = list(lexer)
            break
        except ValueError:
            words = []
    command = []
    for word in [*words, ";"]:
        if re.fullmatch(r"[;|&<>]+", word):
            if command:
                yield command
            command = [] if word[0] not in "<>" else ["<"]
        else:
            command.append(word)


def check_command(kvctl, kvstored, targets, words):
    while words and (words[0] in PREFIXES or re.match(r"[A-Z_]+=", words[0])):
        words = words[1:]
    if not words:
        return None
    name = os.path.basename(words[0].strip('"'))
    # A line of an output begins with the name and a colon, or has the name alone.
    if name == "kvctl" and len(words) > 1:
        return kvctl.check(words[1:])
    if name == "kvstored":
        for word in words[1:]:
            if word.startswith("--") and word[2:] not in kvstored:
                return f"kvstored has no option {word}"
    if words[0] == "make":
        for word in words[1:]:
            if re.fullmatch(r"[a-z][a-z-]*", word) and word not in targets:
                return f"the Makefile has no target {word}"
    return None


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    kvctl, kvstored = Kvctl(sys.argv[1]), options_in(help_of(sys.argv[2]))
    with open("Makefile", encoding="utf-8") as file:
        makefile = file.read()
    targets = {target for line in re.findall(r"^(?:\.PHONY:)?([a-z][a-z _.-]*|[^\n:=]*)(?::|$)", makefile, re.M)
               for target in line.split()}
    targets.update(word for line in re.findall(r"^\.PHONY: (.*)$", makefile, re.M) for word in line.split())
    findings, count = 0, 0
    for pattern in DOCUMENTS:
        for path in sorted(glob.glob(pattern)):
            for number, text in commands_in(path):
                for words in split_commands(text):
                    count += words[0].endswith("kvctl")
                    finding = check_command(kvctl, kvstored, targets, words)
                    if finding:
                        print(f"{path}:{number}: {finding}")
                        findings += 1
    if count < 50:
        print(f"tests/guides.py: found only {count} commands: the documents are written in another way now")
        findings += 1
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
