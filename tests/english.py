#!/usr/bin/env python3
"""Find phrases that readers stumble over, and print what to write instead.

    tests/english.py             check the texts that people read; exit status 1 if there are any findings
    tests/english.py FILE...     check these files, C sources included

Only phrases that are nearly always wrong are in the list. If one is right in its place, reword the sentence anyway.
CONTRIBUTING.md says how the project writes. Run by tests/lint.
"""
import os
import re
import subprocess
import sys

# What is checked: the texts for users, operators and contributors, and the comments and messages of these rooms.
TEXTS = ["*.md", "docs/man/*.[1-8]", "docs/man/*.in", "systemd/*", "bootstrap", "Makefile", "tests/lint", "conf/*",
         "proto/*.[ch]", "client/*.[ch]", "daemon/*.[ch]"]

PHRASES = [
    (r"anew", "again, recreate, restart"),
    (r"(?:is|are|was|were|been) told", "is notified, receives, is reported"),
    (r"behind (?:it|them|the (?:last|first|answer|call|colon))", "after"),
    (r"under way", "in flight, in progress"),
    (r"any ?more", "no longer"),
    (r"in vain", "without success"),
    (r"for want of", "because of a lack of"),
    (r"as ever", "as usual, or nothing"),
    (r"in place of", "instead of"),
    (r"all the same", "still, anyway"),
    (r"save (?:where|that|in|for)", "except"),
    (r"as a rule", "usually"),
    (r"of (?:ours|theirs)", "name the owner"),
    (r"(?:is|are) (?:well(?!-| known)|as it was|as they were)", "is correct, is unchanged"),
    (r"where (?:there|it|they) (?:is|are|was|were)(?: not| no| any)?", "if"),
    (r"only where", "only if"),
    (r"(?:(?-i:Who)|whoever) (?:asks|reads|wants|needs|calls|comes|waits|writes|starts)", "name the subject: a client that ..."),
    (r"hears? of", "is notified of"),
    (r"so (?:many|long|much) (?:bytes|seconds|keys|entries)", "this many, for this long"),
    (r"is no (?:map|list|text|number|name|array|error)", "is not a ..."),
    (r"goes? on (?:behind|with|as|after)", "continue, resume"),
    (r"found out (?:what|whether)", "determined"),
]
PATTERN = re.compile("|".join(rf"(?P<p{i}>\b(?:{phrase})\b)" for i, (phrase, _) in enumerate(PHRASES)), re.I)
# In C, only comments and strings are text.
C_TEXT = re.compile(r'"(?:\\.|[^"\\\n])*"|/\*.*?\*/|//[^\n]*', re.S)


def texts_of(path, content):
    """Return (offset, text) of each part of the file that is text."""
    if path.endswith((".c", ".h")):
        return [(match.start(), match.group()) for match in C_TEXT.finditer(content)]
    return [(0, content)]


def check(path):
    with open(path, encoding="utf-8") as file:
        content = file.read()
    found = 0
    for offset, text in texts_of(path, content):
        # A phrase may continue in the next line of a comment.
        for match in PATTERN.finditer(re.sub(r"\n[ \t]*[*#]?[ \t]*", lambda gap: " " * len(gap.group()), text)):
            line = content.count("\n", 0, offset + match.start()) + 1
            advice = PHRASES[int(match.lastgroup[1:])][1]
            print(f"{path}:{line}: \"{match.group().strip()}\": {advice}")
            found += 1
    return found


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    paths = sys.argv[1:] or subprocess.run(["git", "ls-files", *TEXTS], check=True, capture_output=True,
                                           text=True).stdout.split()
    return 1 if sum(check(path) for path in paths) else 0


if __name__ == "__main__":
    sys.exit(main())
