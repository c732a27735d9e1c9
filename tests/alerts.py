#!/usr/bin/python3
"""Check the expressions of docs/monitoring/alerts.yml: brackets, functions and labels.

    tests/with_daemon tests/alerts.py

The labels are those that the daemon shows; tests/integration/metrics_test.c checks that its metrics exist. If promtool
is installed, it checks the file, too.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
RULES = ROOT / "docs/monitoring/alerts.yml"
PROGRAM = ROOT / os.environ.get("BUILD", "build/asan") / "kvctl"

# Of PromQL, as far as alert rules use it.
FUNCTIONS = {"abs", "avg_over_time", "changes", "clamp_min", "delta", "deriv", "histogram_quantile", "increase", "irate",
             "max_over_time", "min_over_time", "predict_linear", "rate", "resets", "time", "vector"}
AGGREGATIONS = {"avg", "bottomk", "count", "max", "min", "sum", "topk"}
KEYWORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset"}
# Prometheus adds these to each sample, and `up` of each target.
ADDED_LABELS = {"instance", "job"}
OTHER_METRICS = {"up", "process_start_time_seconds"}


def expressions():
    """Return (line number, expression) of each rule."""
    found, indent = [], None
    for number, line in enumerate(RULES.read_text().split("\n"), 1):
        match = re.match(r"( *)expr: (.*)", line)
        if match:
            found.append((number, "" if match[2] == "|" else match[2]))
            indent = len(match[1]) if match[2] == "|" else None
        elif indent is not None and len(line) - len(line.lstrip()) > indent:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
        else:
            indent = None
    return found


def known_labels():
    """Return the labels of each metric that the daemon shows."""
    subprocess.run([PROGRAM, "get", "nowhere", "key"], capture_output=True)  # an error has a metric, too
    text = subprocess.run([PROGRAM, "metrics"], check=True, capture_output=True, text=True).stdout
    labels = {}
    for line in text.splitlines():
        match = re.match(r"(?:# TYPE )?(\w+)(?:\{(.*)\})? ", line)
        if match:
            labels.setdefault(match[1], set()).update(re.findall(r"(\w+)=\"", match[2] or ""))
    return labels


def is_balanced(expression):
    open_brackets = []
    for character in re.sub(r'"[^"]*"', "", expression):
        if character in "([{":
            open_brackets.append(character)
        elif character in ")]}" and (not open_brackets or open_brackets.pop() + character not in ("()", "[]", "{}")):
            return False
    return not open_brackets and expression.count('"') % 2 == 0


def faults_of(expression, labels):
    """Return what is wrong with an expression."""
    if not is_balanced(expression):
        return ["its brackets or quotes are not balanced"]
    faults, used = [], ADDED_LABELS | {"le"}
    text = re.sub(r'"[^"]*"', '""', expression)
    for name, selectors in re.findall(r"\b([a-z_]\w*)\s*(?:\{([^}]*)\})", text):
        metric = labels.get(name, set())
        used = used | metric
        faults += [f"{name} has no label {label}" for label in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)', selectors)
                   if label not in metric | ADDED_LABELS]
    text = re.sub(r"\{[^}]*\}", "", text)
    for name, group in re.findall(r"\b(by|without|on|ignoring)\s*\(([^)]*)\)", text):
        faults += [f"there is no label {label}" for label in re.findall(r"\w+", group) if label not in used]
    text = re.sub(r"\b(?:by|without|on|ignoring)\s*\([^)]*\)", "", text)
    text = re.sub(r"\[\d+[smhd]\]", "", text)
    for name, call in re.findall(r"\b([a-zA-Z_]\w*)\b\s*(\(?)", text):
        if call and name not in FUNCTIONS | AGGREGATIONS | KEYWORDS:
            faults.append(f"there is no function {name}")
        elif not call and not name.startswith("kvstored_") and name not in KEYWORDS | AGGREGATIONS | OTHER_METRICS:
            faults.append(f"there is no metric {name}")
    if re.search(r"[^\w\s()<>=!+*/.,%\"-]", text):
        faults.append(f"it has a character that PromQL does not know: {text}")
    return faults


def main():
    labels = known_labels()
    found = expressions()
    faults = [f"docs/monitoring/alerts.yml:{number}: {fault}" for number, expression in found
              for fault in faults_of(expression, labels)]
    if len(found) != RULES.read_text().count("- alert:") or len(found) < 10:
        faults.append(f"alerts.py: found only {len(found)} expressions")
    print("\n".join(faults or [f"alerts.py: {len(found)} expressions: ok"]))
    if shutil.which("promtool"):
        faults += subprocess.run(["promtool", "check", "rules", RULES]).returncode * ["promtool"]
    else:
        print("SKIPPED: promtool check rules: promtool is not installed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
