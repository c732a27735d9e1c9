#!/usr/bin/env python3
"""Check that proto/protocol.md describes each method of proto/methods.h, with its arguments, options and access, and
that the Python package has a typed function for each method, and repeats those that can be repeated.

    tests/methods.py     print what differs; exit status 1 if anything does

Run by tests/lint.
"""
import ast
import glob
import os
import re
import sys

# The option of every method: the table of the protocol does not repeat it.
ANY_METHOD = {"timeout"}
# Options that the Python package sets by itself.
SET_BY_PYTHON = {"id", "first_sent"}
# Methods that it does not call: a function does the same with another method.
REPLACED_IN_PYTHON = {"kv.get_json": "get_json"}
# The access that a flag of proto/methods.h means.
ACCESS = {"READS": "read", "WRITES": "write", "ADMINISTERS": "admin", "NEEDS_WRITE": "write", "NEEDS_ADMIN": "admin"}
ROW = re.compile(r'METHOD\((\w+), (\w+),\s*(\d+), (\d+), ([^",]*),\s*(METHODS_BUCKET_OPTIONS)?\s*("[^"]*")?\)')


def read_table(text):
    """Return the methods of proto/methods.h by name: (fewest arguments, most, options, access)."""
    table = text[text.index("#define METHODS(METHOD)"):text.index("/* clang-format on */")]
    table = re.sub(r"\s*\\\n\s*", " ", table)
    rows = {}
    for family, verb, fewest, most, flags, settings, options in ROW.findall(table):
        names = set(options.strip('"').split()) - ANY_METHOD | ({"settings"} if settings else set())
        access = [ACCESS[flag] for flag in re.findall(r"METHOD_(\w+)", flags) if flag in ACCESS]
        rows[f"{family}.{verb}"] = (int(fewest), int(most), names, " ".join(access))
    if len(rows) != table.count("METHOD("):
        sys.exit("tests/methods.py: cannot read each row of proto/methods.h")
    return rows


def read_protocol(text):
    """Return the rows of the table of methods in proto/protocol.md, in the same form."""
    rows = {}
    section = text[text.index("\n## Methods"):]
    section = section[:section.index("\n### ")]
    for name, parameters, access in re.findall(r"^\| `(\w+\.\w+)` \| ([^|]*)\|[^|]*\|([^|]*)\|", section, re.M):
        options = re.search(r"\{([^}]*)\}", parameters)
        arguments = [part.strip() for part in re.sub(r"\{[^}]*\}", "", parameters).split(",") if part.strip()]
        fewest = sum(not argument.startswith("[") for argument in arguments)
        names = {option.strip() for option in options.group(1).split(",")} if options else set()
        rows[name] = (fewest, len(arguments), names, access.split(",")[0].strip())
    return rows


def check_python(table, text):
    """Print what is wrong with the sets of methods in client/python/kvstored/_core.py. Return how much that is."""
    sets = {name: set(re.findall(r'"(\w+\.\w+)"', body))
            for name, body in re.findall(r"^(\w+) = frozenset\(\((.*?)\)\)", text, re.M | re.S)}
    with_id = {name for name, (_, _, options, _) in table.items() if "first_sent" in options}
    reads = {name for name, (_, _, _, access) in table.items() if access == "read" and not name.startswith("watch.")}
    wrong = (sets["WRITES_WITH_ID"] ^ with_id) | (reads - sets["READS"]) | (sets["READS"] & with_id)
    for name in sorted(wrong):
        print(f"{name}: proto/methods.h and client/python/kvstored/_core.py differ about repeating it")
    return len(wrong)


def read_requests(tree):
    """Return what the functions of a Python file send: {method: options}.

    A function sends a method if the method's name is an argument of one of its calls: Request(...), or call(...). The
    options are the keys of the maps in that call, and its keyword arguments.
    """
    sent = {}
    for function in ast.walk(tree):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for call in ast.walk(function):
            if not isinstance(call, ast.Call):
                continue
            maps = [argument for argument in call.args if isinstance(argument, ast.Dict)]
            names = {key.value for one in maps for key in one.keys if isinstance(key, ast.Constant)}
            if any(key is None for one in maps for key in one.keys):  # **settings
                names.add("settings")
            if isinstance(call.func, ast.Name) and call.func.id == "Watch":
                sent.setdefault("watch.start", set()).update(names)
            first = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
            is_request = isinstance(call.func, ast.Name) and call.func.id == "Request" or \
                isinstance(call.func, ast.Attribute) and call.func.attr == "call"
            if is_request and isinstance(first, str):
                sent.setdefault(first, set()).update(names)
    return sent


def check_python_functions(table, paths):
    """Print which methods and options no function of the Python package sends. Return their number."""
    sent, parameters = {}, {}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            tree = ast.parse(file.read())
        for method, names in read_requests(tree).items():
            if path.endswith("_core.py") and not method.startswith(("watch.", "call.")):
                continue  # a call that the core makes for itself
            sent.setdefault(method, set()).update(names)
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                parameters.setdefault(node.name, set()).update(argument.arg for argument in node.args.kwonlyargs)
    for method, function in REPLACED_IN_PYTHON.items():
        sent[method] = parameters.get(function, set()) - ANY_METHOD
    findings = 0
    for method, (_, _, options, _) in sorted(table.items()):
        wanted = options - SET_BY_PYTHON
        if method not in sent:
            findings += 1
            print(f"{method}: no function in client/python/kvstored/aio.py makes this call")
        elif sent[method] - SET_BY_PYTHON - ANY_METHOD != wanted:
            findings += 1
            print(f"{method}: proto/methods.h has the options {{{', '.join(sorted(wanted))}}}, client/python/kvstored "
                  f"sends {{{', '.join(sorted(sent[method]))}}}")
    for method in sorted(sent.keys() - table.keys()):
        findings += 1
        print(f"{method}: client/python/kvstored calls it, but proto/methods.h does not have it")
    return findings


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    with open("proto/methods.h", encoding="utf-8") as file:
        table = read_table(file.read())
    with open("proto/protocol.md", encoding="utf-8") as file:
        protocol = read_protocol(file.read())
    with open("client/python/kvstored/_core.py", encoding="utf-8") as file:
        findings = check_python(table, file.read())
    findings += check_python_functions(table, sorted(
        set(glob.glob("client/python/kvstored/*.py")) - set(glob.glob("client/python/kvstored/*blocking*.py"))))
    for name in sorted(table.keys() | protocol.keys()):
        if table.get(name) != protocol.get(name):
            findings += 1
            print(f"{name}: proto/methods.h: {describe(table.get(name))}; proto/protocol.md: {describe(protocol.get(name))}")
    return 1 if findings else 0


def describe(row):
    if row is None:
        return "no row"
    fewest, most, options, access = row
    return f"{fewest} to {most} arguments, options {{{', '.join(sorted(options))}}}, access {access or 'none'}"


if __name__ == "__main__":
    sys.exit(main())
