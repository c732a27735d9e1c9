"""The report of a failure, and the requests that are kept of it."""
import time

import answers

# A sanitizer needs this time to write its report.
SANITIZER_S = 20


def describe(request, now, limit):
    """Return a request, decoded and in hex. Each form is cut at that many characters."""
    when = f"sent {now - request.sent_at:.3f} s ago" if request.sent_at else "not sent completely"
    shown = request.data[:limit // 2]
    cut = f"... ({len(request.data)} bytes)" if len(shown) < len(request.data) else ""
    return (f"  {request.session_name}, msgid {request.msgid}, {when}: "
            f"{request.method} {answers.short(request.params, limit)}\n    hex: {shown.hex()}{cut}")


def wait_for_sanitizer(daemon):
    """Wait until a daemon that is about to die has written why. Return whether it has ended."""
    end = time.monotonic() + 1
    while not daemon.has_ended() and time.monotonic() < end:
        time.sleep(0.05)
        if b"Sanitizer" in daemon.log_path.read_bytes()[-100_000:]:
            end = max(end, time.monotonic() + SANITIZER_S)
    return daemon.has_ended()


def write_requests(path, requests):
    path.write_bytes(b"".join(len(request.data).to_bytes(4, "big") + request.data for request in requests))


def read_requests(path):
    """Return the bytes of each request in a file of write_requests."""
    requests = []
    with open(path, "rb") as file:
        while size := file.read(4):
            requests.append(file.read(int.from_bytes(size, "big")))
    return requests


def report(run, wrong):
    """Print what failed and what was in flight. Keep the requests beside the daemon's log."""
    now = run.clock()
    has_ended = run.daemon.process is not None and wait_for_sanitizer(run.daemon)
    in_flight = [request for session in run.sessions for request in (*session.pending.values(), *session.nil_pending)]
    suspects = sorted({id(request): request for request in (*run.recent, *in_flight)}.values(),
                      key=lambda request: request.sent_at or now)
    requests_path = run.daemon.log_path.with_suffix(".requests")
    write_requests(requests_path, suspects)

    print(f"fuzz protocol FAILED: {wrong}, seed {run.seed}", flush=True)
    if has_ended:
        print(f"the daemon has ended with status {run.daemon.process.returncode}")
    if getattr(wrong, "request", None):
        print("the request:\n" + describe(wrong.request, now, 2000))
    elif getattr(wrong, "session", None):
        print(f"in {wrong.session.name}, which {wrong.session.ending.value}")
    print(f"{len(in_flight)} requests in flight; of those that were sent, the last:")
    for request in [request for request in suspects if request.sent_at and request in in_flight][-20:]:
        print(describe(request, now, 300))
    print(f"the daemon's log ({run.daemon.log_path}):")
    for line in run.daemon.last_log_lines():
        print("  " + line[:500])
    print(f"to repeat the run: tests/fuzz/protocol/run {run.seconds:g} --seed {run.seed}\n"
          f"to send only the last {len(suspects)} requests: tests/fuzz/protocol/run --replay {requests_path}")
