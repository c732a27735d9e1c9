#!/usr/bin/env python3
"""Check the relative links of documents.

    tests/links.py DIRECTORY    print each link of a *.md below DIRECTORY that leads nowhere; exit status 1 if any does

tests/facts.py checks those of the sources, tests/install and tests/packages those of what is installed.
"""
import glob
import os
import re
import sys


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def anchor_of(heading):
    """Return the anchor that GitHub and others make of a heading."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def check_links(paths):
    findings = []
    for path in paths:
        text = re.sub(r"```.*?```", "", read(path), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"\w+:", target):
                continue
            file, _, anchor = target.partition("#")
            file = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
            if not os.path.exists(file):
                findings.append(f"{path}: links to {target}, which does not exist")
            elif anchor and anchor not in map(anchor_of, re.findall(r"^#+ (.*)$", read(file), re.M)):
                findings.append(f"{path}: links to {target}, and {file} has no such section")
    return findings


def main():
    os.chdir(sys.argv[1])
    paths = sorted(glob.glob("**/*.md", recursive=True))
    findings = check_links(paths) if paths else ["there are no documents"]
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
