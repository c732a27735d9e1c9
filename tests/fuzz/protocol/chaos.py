"""What happens beside the requests: NATS crashes, the configuration changes, buckets come and go."""
import json

import grammar
import pools
from answers import Wrong, expect

# Between two crashes: the daemon waits longer before each restart of a server that crashes at once.
CRASH_GAP_S = 6
# NATS must be back so long after a crash.
RECOVERY_S = 90
# After the first write that succeeds again, a call may still fail for so long.
GRACE_S = 0.5
UPKEEP_S = 4

STORM_CALLS = 150
FULL_KEYS = 2000
# The settings that bucket.update can change, at their defaults.
DEFAULT_SETTINGS = {"history": 1, "ttl": 0, "max_value_size": -1, "max_bytes": -1, "compression": False,
                    "limit_marker_ttl": 0, "marker_ttl": 0}

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
        {"watches": {"buffer_bytes": 4096, "max_per_session": 3, "max_buckets": 2, "reconcile_interval": 0.1, "heartbeat": 0.1}},
        {"cache": {"max_bytes": 65536, "idle_timeout": 0.1, "max_staleness": 0}},
        {"cache": {"buckets": ["fz-*"]}},
        {"locks": {"max": 10, "max_per_session": 3}},
        {"buckets": {"group_commit": "on", "metadata_ttl": 1}},
        {"buckets": {"group_commit": "off"}},
        {"access": ACCESS_RULES},
        {"log": {"level": "debug"}},
        {"nats": {"ping_interval": 0.1, "outage_wait": 0.1}},
        {"limits": {"no_such_limit": 1}},  # the daemon refuses this file, and keeps its settings
    )


class Outage:
    """A time without NATS, from a crash until a write succeeds that began after the last crash."""

    def __init__(self, crash):
        self.first_crash = self.last_crash = crash
        self.recovery = float("inf")


class Outages:
    """The times without NATS, as far as the bystander can tell."""

    def __init__(self, clock):
        self.clock = clock
        self.outages = []

    def is_open(self):
        return bool(self.outages) and self.outages[-1].recovery == float("inf")

    def since_crash(self):
        return self.clock() - self.outages[-1].last_crash if self.outages else float("inf")

    def note_crash(self, at):
        if self.is_open():
            self.outages[-1].last_crash = max(at, self.outages[-1].last_crash)
        else:
            self.outages.append(Outage(at))

    def note_success(self, begin, end):
        if self.is_open() and begin > self.outages[-1].last_crash:
            self.outages[-1].recovery = end

    def overlap(self, begin, end):
        return any(begin <= outage.recovery + GRACE_S and end >= outage.first_crash for outage in self.outages)

    def check(self):
        if self.is_open():
            expect(self.since_crash() < RECOVERY_S, "NATS is not back {} s after it crashed", RECOVERY_S)


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
        self.next_at = run.clock() + 1
        self.upkeep_at = run.clock()
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
        """Return calls that create the buckets that are missing, restore the settings, and fill a bucket."""
        calls = []
        for name, settings in pools.BUCKETS.items():
            calls.append(("bucket.create", [name, settings]))
            if "mirror" not in settings:
                calls.append(("bucket.update", [name, {**DEFAULT_SETTINGS, **settings, "force": True}]))
        calls.append(("bulk.put", [pools.FULL_BUCKET, dict.fromkeys(pools.numbered_keys(FULL_KEYS), "v" * 100)]))
        return calls

    def crash(self):
        """Kill the nats-server during conditional writes and long reads, after some are answered."""
        if self.run.outages.is_open() or self.run.outages.since_crash() < CRASH_GAP_S:
            return
        self.storms += 1
        storm = Storm(self, answers_left=self.rng.choice((1, 2, 5, 20, 50)), crashes_left=self.rng.choice((1, 2, 2)))
        self.run.open_session(f"storm {self.storms}", self.storm(), storm.on_answer)

    def storm(self):
        """Return conditional writes, most of them to the bucket without atomic batches, and long reads."""
        rng, calls = self.rng, []
        for number in range(STORM_CALLS):
            bucket = rng.choice((pools.OLD_BUCKET, pools.OLD_BUCKET, pools.FULL_BUCKET))
            key = f"storm{self.storms}.{number}"
            timeout = {"timeout": rng.choice((0.2, 0.5, 1, 2))}
            operations = [["create", f"{key}.a", "v"], ["put", f"{key}.b", "v"]]
            consistency = {"consistency": rng.choice(grammar.CONSISTENCIES)}
            read = rng.choice((
                ("bulk.get", [pools.FULL_BUCKET, pools.numbered_keys(FULL_KEYS), consistency]),
                ("kv.keys", [pools.FULL_BUCKET]),
                ("watch.start", [bucket, {"include_history": True}]),
            ))
            create = ("kv.create", [bucket, key, "v", timeout])
            calls.append(rng.choice((
                create, create, create, create, create, create,
                ("kv.update", [bucket, key, "v", 0, timeout]),
                ("bulk.put", [bucket, {f"{key}.{part}": "v" for part in range(10)}]),
                ("txn.commit", [pools.FULL_BUCKET, [[key, 0]], operations]),
                read,
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


class Storm:
    """Kills the nats-server during a session of many calls, and at times again as soon as it answers.

    After the first crash the daemon asks what became of its writes. The second one comes meanwhile.
    """

    def __init__(self, chaos, answers_left, crashes_left):
        self.chaos = chaos
        self.answers_left = answers_left
        self.crashes_left = crashes_left
        self.killed_pid = None

    def on_answer(self, error):
        daemon, outages = self.chaos.run.daemon, self.chaos.run.outages
        self.answers_left -= 1
        if self.answers_left > 0 or self.crashes_left == 0:
            return
        if self.killed_pid is not None and (error is not None or daemon.nats_pid() in (None, self.killed_pid)):
            return  # this answer came without the new server
        self.killed_pid = daemon.kill_nats()
        if self.killed_pid is not None:
            outages.note_crash(self.chaos.run.clock())
            self.chaos.counts["crashes"] += 1
        self.crashes_left -= 1
