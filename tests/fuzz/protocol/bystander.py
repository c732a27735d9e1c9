#!/usr/bin/python3
"""A well-behaved client: a put and a get about every 50 ms.

    bystander.py SOCKET BUCKET

It is a process of its own, so that it measures the daemon and not the fuzzer's loop. For each call
it prints a line: the method, when the call began and when it ended (in seconds of the monotonic
clock), and "ok" or an error in JSON. It ends at the end of its standard input.
"""
import json
import pathlib
import select
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "support"))

from daemon import Caller

PERIOD_S = 0.05
TIMEOUT_S = 60


def report(method, begin, wrong=None):
    print(f"{method} {begin:.6f} {time.monotonic():.6f} {json.dumps(wrong) if wrong else 'ok'}", flush=True)


def main():
    path, bucket = sys.argv[1:3]
    caller = Caller(path, TIMEOUT_S + 60)
    turn = 0
    while not select.select([sys.stdin], [], [], PERIOD_S)[0]:
        turn += 1
        key, value = f"k{turn % 7}", f"value {turn}".encode()
        options = {"timeout": TIMEOUT_S}
        begin = time.monotonic()
        error, _ = caller.call("kv.put", [bucket, key, value, options])
        report("kv.put", begin, error)
        begin = time.monotonic()
        consistency = ("direct", "leader", "cached")[turn % 3]
        failed_put = error is not None
        error, entry = caller.call("kv.get", [bucket, key, {"consistency": consistency, **options}])
        if error is None and not failed_put and (entry is None or entry["value"] != value):
            error = {"code": "wrong value", "message": f"{entry} after a put of {value}", "retryable": False}
        report(f"kv.get({consistency})", begin, error)


if __name__ == "__main__":
    try:
        main()
    except OSError as problem:
        report("(session)", time.monotonic(), {"code": "session lost", "message": str(problem), "retryable": False})
        sys.exit(1)
