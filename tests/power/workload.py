#!/usr/bin/python3 -B
"""The client whose writes must survive. It runs under strace, with the daemon as its child.

    workload.py PROGRAM SERVER DIRECTORY SEED ROUNDS SETTINGS

Actors make one call at a time each, all of them in one session. After each answer the client writes a mark, a line that
names the steps that are now acknowledged: strace records that write among the calls of the nats-server, and so it is
known what had been acknowledged before each of these. At the end the chains are written to DIRECTORY/chains.json.
SETTINGS are JSON, for the section "nats".
"""
import json
import os
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from chains import GONE, Chain, value_of
from daemon_process import Daemon, Failed, die_with_parent

SETTINGS = {
    "plain": {"history": 1},
    "history": {"history": 5},
    # With these limits nats-server makes blocks of 32 KB, so that it begins, compacts and removes many.
    "blocks": {"history": 1, "max_bytes": 120_000},
    "churn": {"history": 1, "max_bytes": 120_000},
    "packed": {"history": 2, "max_bytes": 120_000, "compression": True},
}


def make_daemon(program, server, directory, nats_settings):
    """Return a daemon that answers also on a busy machine. Its log is in its directory."""
    return Daemon(program, server, directory, pathlib.Path(directory) / "log",
                  {"nats": {"ping_interval": 60, **nats_settings}, "calls": {"timeout": 50}})


class Workload:
    def __init__(self, directory, seed):
        self.directory = pathlib.Path(directory)
        self.seed = seed
        self.chains = []
        self.marks = os.open(self.directory / "marks", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.session = None

    def chain(self, bucket, name, keys=(), is_life=False):
        chain = Chain(f"{bucket}/{name}", bucket, keys, is_life)
        self.chains.append(chain)
        return chain

    def rng(self, name):
        return random.Random(f"{self.seed} {name}")

    # --- The loop ------------------------------------------------------------------------------------

    def run(self, actors):
        """Let the actors take turns until they have ended. An actor yields (method, params, [(chain, keys)])."""
        under_way = {}

        def advance(actor, result):
            try:
                method, params, acknowledged = actor.send(result)
            except StopIteration:
                return
            under_way[self.session.send(method, params)] = actor, acknowledged, method, params

        for actor in actors:
            advance(actor, None)
        while under_way:
            msgid, error, result = self.session.receive()
            actor, acknowledged, method, params = under_way.pop(msgid)
            if error:
                raise Failed(f"{method}{params[:2]}: {error}")
            self.acknowledge(acknowledged, result)
            advance(actor, result)

    def acknowledge(self, acknowledged, result):
        for chain, keys in acknowledged:
            if isinstance(result, dict):
                if any("revision" not in result.get(key, {}) for key in keys):
                    raise Failed(f"{chain.name}: {result}")
                revisions = {key: result[key]["revision"] for key in keys}
            elif isinstance(result, list):
                revisions = dict(zip(keys, result))
            else:
                revisions = {key: result for key in keys}
            chain.answers.append(revisions)
        if acknowledged:
            os.write(self.marks, json.dumps([chain.name for chain, _ in acknowledged]).encode() + b"\n")

    def save(self):
        (self.directory / "chains.json").write_text(json.dumps([chain.to_json() for chain in self.chains]))


# --- Actors --------------------------------------------------------------------------------------------

def create_buckets(workload):
    for bucket, settings in SETTINGS.items():
        chain = workload.chain(bucket, "settings", is_life=True)
        chain.add("create", settings=settings)
        yield "bucket.create", [bucket, settings], [(chain, ())]


def key_writer(workload, chain, count, sizes):
    """Write one key again and again, by each of the methods that write."""
    rng = workload.rng(f"{chain.name} {len(chain.steps)}")
    bucket, key = chain.bucket, chain.keys[0]
    for _ in range(count):
        value = [f"{chain.name}#{len(chain.steps) + 1}", rng.choice(sizes)]
        exists = key in chain.state()["values"]
        what = rng.choices(("put", "update" if exists else "create", "delete", "purge"), (5, 3, 2, 1))[0]
        chain.add(what, {key: value if what in ("put", "update", "create") else GONE})
        params = [bucket, key]
        if what in ("put", "update", "create"):
            params.append(value_of(*value))
        if what == "update":
            params.append(chain.answers[-1][key])
        yield f"kv.{what}", params, [(chain, (key,))]


def group_writer(workload, chain, count, size):
    """Write a group of keys by transactions: each deletes some keys, and puts the others."""
    rng = workload.rng(f"{chain.name} {len(chain.steps)}")
    for _ in range(count):
        number = len(chain.steps) + 1
        changes = {key: GONE if rng.random() < 0.2 else [f"{chain.name}#{number} {key}", size] for key in chain.keys}
        chain.add("commit", changes)
        operations = [["put", key, value_of(*value)] if value else [rng.choice(("delete", "purge")), key]
                      for key, value in changes.items()]
        yield "txn.commit", [chain.bucket, [], operations], [(chain, chain.keys)]


def bulk_writer(workload, chains, count):
    """Write many keys, each by itself, in one call."""
    rng = workload.rng(f"bulk {len(chains[0].steps)}")
    bucket = chains[0].bucket
    for _ in range(count):
        chosen = rng.sample(chains, len(chains) // 2)
        acknowledged = [(chain, chain.keys) for chain in chosen]
        if rng.random() < 0.3:
            for chain in chosen:
                chain.add("delete", {chain.keys[0]: GONE})
            yield "bulk.delete", [bucket, [chain.keys[0] for chain in chosen]], acknowledged
            continue
        values = {}
        for chain in chosen:
            value = [f"{chain.name}#{len(chain.steps) + 1}", rng.randint(20, 300)]
            chain.add("put", {chain.keys[0]: value})
            values[chain.keys[0]] = value_of(*value)
        yield "bulk.put", [bucket, values], acknowledged


def bucket_cycler(workload, chain, count):
    """Create, change, empty and delete a bucket, with some values in it."""
    rng = workload.rng(f"{chain.name} {len(chain.steps)}")
    bucket = chain.bucket
    for _ in range(count):
        settings = chain.state()["settings"]
        what = rng.choices(("put", "txn", "purge", "update", "delete"), (8, 2, 2, 1, 2))[0] if settings else "create"
        if what in ("create", "update"):
            settings = {"history": min(64, settings["history"] + 1) if settings else rng.randint(1, 3)}
            chain.add(what, settings=settings)
            yield f"bucket.{what}", [bucket, settings], [(chain, ())]
        elif what in ("put", "txn"):
            keys = [rng.choice(chain.keys)] if what == "put" else chain.keys
            changes = {key: [f"{chain.name}#{len(chain.steps) + 1} {key}", 150] for key in keys}
            chain.add(what, changes)
            if what == "put":
                yield "kv.put", [bucket, keys[0], value_of(*changes[keys[0]])], [(chain, keys)]
            else:
                yield ("txn.commit", [bucket, [], [["put", key, value_of(*changes[key])] for key in keys]],
                       [(chain, keys)])
        elif what == "purge":
            chain.add(what, empties=True)
            yield "bucket.purge", [bucket], [(chain, ())]
        else:
            chain.add(what, settings=GONE, empties=True)
            yield "bucket.delete", [bucket], [(chain, ())]


def expiring_writer(chain):
    """Overwrite a value by one that expires."""
    key = chain.keys[0]
    for ttl in (None, 1):
        value = [f"{chain.name}#{len(chain.steps) + 1}", 50, ttl]
        chain.add("put", {key: value})
        yield "kv.put", [chain.bucket, key, value_of(*value[:2]), {"ttl": ttl} if ttl else {}], [(chain, (key,))]


def wait_for_expiry(workload, chain):
    """A value that was seen to have expired must not come back, nor the one before it."""
    while workload.session.call("kv.get", chain.bucket, chain.keys[0]) is not None:
        time.sleep(0.1)
    chain.add("expire", {chain.keys[0]: GONE})
    workload.acknowledge([(chain, ())], None)


def churner(workload, chains, count):
    """Write keys, delete them, and remove their markers: no deleted value may come back."""
    bucket = chains[0].bucket
    acknowledged = [(chain, chain.keys) for chain in chains]
    for _ in range(count):
        values = {}
        for chain in chains:
            value = [f"{chain.name}#{len(chain.steps) + 1}", 500]
            chain.add("put", {chain.keys[0]: value})
            values[chain.keys[0]] = value_of(*value)
        yield "bulk.put", [bucket, values], acknowledged
        for chain in chains:
            chain.add("delete", {chain.keys[0]: GONE})
        yield "bulk.delete", [bucket, list(values)], acknowledged
        yield "bucket.compact", [bucket, {"older_than": 0}], []
        for _ in range(8):  # meanwhile the others are gone
            value = [f"{chains[0].name}#{len(chains[0].steps) + 1}", 50]
            chains[0].add("put", {chains[0].keys[0]: value})
            yield "kv.put", [bucket, chains[0].keys[0], value_of(*value)], [(chains[0], chains[0].keys)]


def follow(bucket):
    """Have the daemon follow the bucket, with a consumer."""
    yield "kv.get", [bucket, "followed", {"consistency": "cached"}], []


def main():
    die_with_parent()  # with strace
    program, server, directory, seed, rounds, settings = sys.argv[1:]
    workload = Workload(directory, seed)
    rounds = int(rounds)

    plain = [workload.chain("plain", f"k{number}", [f"k{number}"]) for number in range(4)]
    history = [workload.chain("history", f"h{number}", [f"h{number}"]) for number in range(3)]
    blocks = [workload.chain(bucket, f"b{number}", [f"b{number}"])
              for bucket in ("blocks", "packed") for number in range(8)]
    groups = [workload.chain("plain", "group", [f"group.{number}" for number in range(5)]),
              workload.chain("plain", "large", [f"large.{number}" for number in range(100)]),
              workload.chain("history", "group", [f"group.{number}" for number in range(20)])]
    bulk = [workload.chain("plain", f"bulk{number}", [f"bulk.{number}"]) for number in range(60)]
    churn = [workload.chain("churn", f"c{number}", [f"c{number}"]) for number in range(60)]
    cycles = [workload.chain(f"cycle-{number}", "life", [f"c{key}" for key in range(4)], is_life=True)
              for number in range(2)]
    expiring = workload.chain("plain", "expiring", ["expiring"])

    for turn in range(2):
        daemon = make_daemon(program, server, directory, json.loads(settings))
        daemon.start()
        workload.session = daemon.connect()
        if turn == 0:
            workload.run([create_buckets(workload)])
            workload.run([expiring_writer(expiring)])
        workload.run(
            [key_writer(workload, chain, 10 * rounds, (10, 200, 3000)) for chain in plain + history] +
            [key_writer(workload, chain, 10 * rounds, (500, 4000)) for chain in blocks] +
            [group_writer(workload, chain, 4 * rounds, 120) for chain in groups] +
            [bucket_cycler(workload, chain, 12 * rounds) for chain in cycles] +
            [bulk_writer(workload, bulk, 4 * rounds), follow("plain"), churner(workload, churn, 4 * rounds)])
        if turn == 0:
            wait_for_expiry(workload, expiring)
        workload.session.close()
        daemon.stop()
    workload.save()


if __name__ == "__main__":
    main()
