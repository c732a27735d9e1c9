"""What happens beside the requests: NATS crashes, the configuration changes, buckets come and go."""
import json

import pools
from answers import Wrong, expect

# Between two crashes: the daemon waits longer before each restart of a server that crashes at once.
CRASH_GAP_S = 6
# NATS must be back so long after a crash.
RECOVERY_S = 90
# After the first write that succeeds again, others that waited may still fail for so long.
GRACE_S = 5
UPKEEP_S = 2

STORM_CALLS = 150
# The settings that bucket.update can change, at their defaults.
DEFAULT_SETTINGS = {"history": 1, "ttl": 0, "max_value_size": -1, "max_bytes": -1, "compression": False,
                    "limit_marker_ttl": 0}

ACCESS_RULES = [
    {"buckets": [pools.BYSTANDER_BUCKET, "fz-h*", "fz-p*", pools.OLD_BUCKET], "allow": "admin"},
    {"buckets": ["fz-m*"], "allow": "write"},
    {"buckets": ["fz-[a-f]*"], "allow": "read"},
]


def reload_profiles(frame_bytes):
    """Return sections that a reload applies. Each reload draws some of them."""
    return (
        {},
        {"calls": {"attempt_timeout": 0.05, "retry_min": 0.001, "retry_max": 0.01}},
        {"limits": {"calls_per_session": 4, "out_buffer_bytes": frame_bytes, "call_bytes_per_session": frame_bytes}},
        {"watches": {"buffer_bytes": 4096, "per_session": 3, "buckets": 2, "check_interval": 0.1, "heartbeat": 0.1}},
        {"cache": {"max_bytes": 65536, "recall_bytes": 0, "idle_timeout": 0.1, "max_staleness": 0}},
        {"cache": {"buckets": ["fz-*"]}},
        {"buckets": {"group_commit": "on", "handle_ttl": 1}},
        {"buckets": {"group_commit": "off"}},
        {"access": ACCESS_RULES},
        {"log": {"level": "debug"}},
        {"nats": {"ping_interval": 0.1, "outage_wait": 0.1}},
        {"limits": {"no_such_limit": 1}},  # the daemon refuses this file, and keeps its settings
    )


class Outages:
    """The times at which NATS was away, as far as the bystander can tell."""

    def __init__(self, clock):
        self.clock = clock
        self.crashes = []
        self.recoveries = []

    def is_open(self):
        return len(self.crashes) > len(self.recoveries)

    def note_crash(self, at):
        if not self.is_open():
            self.crashes.append(at)

    def note_success(self, begin, end):
        """A write that began after a crash succeeded: NATS is back."""
        if self.is_open() and begin > self.crashes[-1]:
            self.recoveries.append(end)

    def overlap(self, begin, end):
        for index, crash in enumerate(self.crashes):
            recovery = self.recoveries[index] if index < len(self.recoveries) else float("inf")
            if begin <= recovery + GRACE_S and end >= crash:
                return True
        return False

    def check(self):
        if self.is_open():
            expect(self.clock() < self.crashes[-1] + RECOVERY_S, "NATS is not back {} s after it crashed", RECOVERY_S)


class Verdict:
    """Judges the bystander's lines."""

    def __init__(self, outages, look_for_crashes):
        self.outages = outages
        self.look_for_crashes = look_for_crashes  # called before an error is judged
        self.slowest = ("", 0.0, 0.0)             # outside outages: the method, when it began, its seconds
        self.calls = 0

    def take_line(self, line):
        method, begin, end, outcome = line.split(" ", 3)
        begin, end = float(begin), float(end)
        self.calls += 1
        if outcome == "ok":
            if method == "kv.put":
                self.outages.note_success(begin, end)
            if end - begin > self.slowest[2] and not self.outages.overlap(begin, end):
                self.slowest = (method, begin, end - begin)
            return
        error = json.loads(outcome)
        self.look_for_crashes()
        if not (error["retryable"] and self.outages.overlap(begin, end)):
            raise Wrong(f"the bystander's {method} fails after {end - begin:.3f} s: {error}")


class Chaos:
    """Causes an event every second or two. The seed decides which, the clock when."""

    def __init__(self, run):
        self.run = run
        self.rng = pools.new_rng(run.seed, "chaos")
        self.next_at = self.upkeep_at = run.clock() + UPKEEP_S
        self.upkeeps = self.storms = 0
        self.counts = {"crashes": 0, "reloads": 0, "renewals of the old bucket": 0}

    def on_tick(self):
        now = self.run.clock()
        if now >= self.upkeep_at:
            self.upkeep_at = now + UPKEEP_S
            self.upkeeps += 1
            self.run.open_session(f"upkeep {self.upkeeps}", self.upkeep())
        if now >= self.next_at:
            self.next_at = now + self.rng.uniform(0.5, 2)
            self.rng.choice((self.crash, self.crash, self.crash, self.reload, self.reload, self.renew_old_bucket))()

    def upkeep(self):
        """Return calls that create the buckets that are missing, and restore the settings of the others."""
        calls = []
        for name, settings in pools.BUCKETS.items():
            calls.append(("bucket.create", [name, settings]))
            if "mirror" not in settings:
                calls.append(("bucket.update", [name, {**DEFAULT_SETTINGS, **settings}]))
        return calls

    def crash(self):
        """Kill the nats-server during conditional writes, after some of them are answered."""
        outages = self.run.outages
        if outages.is_open() or (outages.crashes and self.run.clock() < outages.crashes[-1] + CRASH_GAP_S):
            return
        self.storms += 1
        left = self.rng.choice((1, 2, 5, 20, 50))

        def count_down():
            nonlocal left
            left -= 1
            if left == 0 and not outages.is_open() and self.run.daemon.kill_nats():
                outages.note_crash(self.run.clock())
                self.counts["crashes"] += 1

        self.run.open_session(f"storm {self.storms}", self.storm(), count_down)

    def storm(self):
        """Return conditional writes, most of them to the bucket without atomic batches."""
        rng, calls = self.rng, []
        for number in range(STORM_CALLS):
            bucket = rng.choice((pools.OLD_BUCKET, pools.OLD_BUCKET, "fz-history"))
            key = f"storm{self.storms}.{number}"
            calls.append(rng.choice((
                ("kv.create", [bucket, key, "v"]),
                ("kv.create", [bucket, key, "v"]),
                ("kv.update", [bucket, key, "v", 0]),
                ("bulk.put", [bucket, {f"{key}.{part}": "v" for part in range(10)}]),
                ("txn.commit", ["fz-history", [[key, 0]], [["create", f"{key}.a", "v"], ["put", f"{key}.b", "v"]]]),
            )))
        return calls

    def reload(self):
        sections = {}
        for profile in self.rng.sample(reload_profiles(self.run.limits["frame_bytes"]), self.rng.randint(1, 3)):
            for name, settings in profile.items():
                sections[name] = {**sections.get(name, {}), **settings} if isinstance(settings, dict) else settings
        self.run.daemon.reload(sections)
        self.counts["reloads"] += 1

    def renew_old_bucket(self):
        """Recreate the bucket without atomic batches, and delete buckets that nobody needs."""
        try:
            nats = self.run.daemon.nats()
        except OSError:
            return  # NATS is away
        try:
            if not nats.is_old(pools.OLD_BUCKET) or self.rng.random() < 0.3:
                nats.make_old_bucket(pools.OLD_BUCKET)
                self.counts["renewals of the old bucket"] += 1
            nats.remove_buckets_but({*pools.ORDERED_BUCKETS, pools.LONG_BUCKET, pools.BYSTANDER_BUCKET})
        except OSError:
            pass  # NATS went away
        finally:
            nats.close()
