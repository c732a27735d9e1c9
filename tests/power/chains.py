"""What the client did, and what must be there after a loss of power.

A chain is a sequence of steps, each sent after the one before was acknowledged: the writes of a key, the transactions
of a group of keys, or all that happens to a bucket whose life is part of the test. After a loss of power the state must
be that after the last acknowledged step, or after the next one, which may have been under way. Nothing in between is
right: a transaction is there as a whole or not at all.

Faults of nats-server (2.15.1) show, which FAULTS lists. They are recognised by what they need, and counted, so that
anything else is seen beside them.
"""
import random

GONE = None
UNCHANGED = object()

FAULTS = {
    "revived history":
        "entries that the limit of the history and then a purge had removed are in the history again: nats-server "
        "writes no tombstone for what a limit removes (nats-server issue 8505)",
    "revived value":
        "a bucket.purge was under way and not acknowledged, and a key has an overwritten value: the same fault",
    "revived expired value":
        "a value expired, and the one that it had overwritten is back: the same fault; it needs no loss of power, the "
        "end of nats-server by SIGKILL is enough; or the expired value itself is back, and stays: what had overwritten "
        "it was the marker of its end, and the file of expiries (thw.db) was saved without it",
    "hidden bucket":
        "a bucket.update was under way and not acknowledged, and the bucket is not there: nats-server replaces "
        "meta.inf and then its checksum meta.sum, and ignores a stream if they do not fit; bucket.create with the same "
        "name brings it back with its values",
    "removed block":
        "a batch that overwrites a key was under way and not acknowledged, and neither the old nor the new value is "
        "there: nats-server removes a block file with the old value before it syncs the batch, and another sync "
        "commits the removal",
    "revived bucket":
        "a deleted bucket is back, as it was: nats-server does not sync the directory in which it renames it; the "
        "filesystem commits that by itself after seconds (ext4: 5, XFS: 30)",
}


def value_of(tag, size):
    """Return the value that a step writes: no two steps write the same."""
    text = f"{tag} ".encode()
    return (text + random.Random(tag).randbytes(max(0, size - len(text))))[:max(size, len(text))]


class Chain:
    """name is "bucket/..."; keys are those that belong to the chain alone. A chain without keys is a bucket's."""

    def __init__(self, name, bucket, keys=(), is_life=False):
        self.name = name
        self.bucket = bucket
        self.keys = list(keys)
        self.is_life = is_life
        self.steps = []     # (what, the state after it)
        self.answers = []   # of the steps that were acknowledged, revisions by key

    def to_json(self):
        return vars(self)

    @classmethod
    def from_json(cls, members):
        chain = cls(members["name"], members["bucket"])
        vars(chain).update(members)
        return chain

    # --- What the client does ------------------------------------------------------------------------

    def state(self, count=None):
        """Return what is there after so many steps: a map of key to [tag, size], and the bucket's settings."""
        count = len(self.steps) if count is None else count
        return self.steps[count - 1][1] if count else {"settings": GONE, "values": {}}

    def add(self, what, changes=None, settings=UNCHANGED, empties=False):
        """Add a step that changes keys to [tag, size], [tag, size, ttl] or GONE."""
        before = self.state()
        values = {} if empties else dict(before["values"])
        for key, value in (changes or {}).items():
            values.pop(key, None)
            if value is not GONE:
                values[key] = value
        if settings is UNCHANGED:
            settings = before["settings"]
        self.steps.append((what, {"settings": settings, "values": values}))

    # --- What must be there --------------------------------------------------------------------------

    def revisions(self, count):
        """Return the revisions that the values have after so many steps, as far as the steps were acknowledged."""
        revisions = {}
        for answer in self.answers[:count]:
            revisions.update(answer)
        return revisions

    def differences(self, count, found):
        """Compare what was found with the state after so many steps. Return sentences."""
        state = self.state(count)
        if self.is_life:
            if state["settings"] is GONE:
                return [] if found is None else [f"the bucket is there, with {len(found['values'])} values"]
            if found is None:
                return ["the bucket is not there"]
            wrong = {name: found["info"].get(name) for name, value in state["settings"].items()
                     if found["info"].get(name) != value}
            if wrong:
                return [f"the bucket's settings are {wrong}"]
        revisions = self.revisions(count)
        differences = []
        for key in self.keys:
            expected = state["values"].get(key)
            entry = found["values"].get(key) if found else None
            if expected is None:
                if entry is not None:
                    differences.append(f"{key} is there, with {entry['value'][:40]!r}")
            elif entry is None:
                if expected[2:] in ([], [None]):
                    differences.append(f"{key} is not there")
            elif entry["value"] != value_of(*expected[:2]):
                differences.append(f"{key} is {entry['value'][:40]!r} at {entry['revision']}")
            elif entry["revision"] != revisions.get(key, entry["revision"]):
                differences.append(f"{key} is at revision {entry['revision']}, not {revisions[key]}")
        return differences

    def judge(self, acknowledged, found, has_removed_block):
        """Return None, or a sentence that says what is wrong and the name of the fault of nats-server, or None.

        has_removed_block: a block file of the bucket was removed after a write to another one that was not synced.
        """
        least = self.differences(acknowledged, found)
        if not least or (acknowledged < len(self.steps) and not self.differences(acknowledged + 1, found)):
            return None
        done = self.steps[acknowledged - 1][0] if acknowledged else "the beginning"
        following = self.steps[acknowledged][0] if acknowledged < len(self.steps) else "nothing"
        sentence = (f"{self.name}: after {done} (acknowledged) and before or after {following} (under way): " +
                    "; ".join(least[:5]) + (f"; and {len(least) - 5} more" if len(least) > 5 else ""))
        fault = None
        if "expire" in (done, following) and self.has_old_values(acknowledged, found):
            fault = "revived expired value"
        if self.is_life and done == "delete" and not self.differences(acknowledged - 1, found):
            fault = "revived bucket"
        if has_removed_block and len(self.keys) == 1 and following != "nothing" and found and (
                self.keys[0] not in found["values"]):
            fault = "removed block"
        if self.is_life and following == "update" and found is None:
            fault = "hidden bucket"
        if self.is_life and following == "purge" and self.has_old_values(acknowledged, found):
            fault = "revived value"
        return sentence, fault

    def has_old_values(self, acknowledged, found):
        """Return whether each value of its keys was written by a step, of a bucket's life since its creation."""
        written = []
        for what, state in reversed(self.steps[:acknowledged]):
            if what == "create":
                break
            written += [(key, value_of(*value[:2])) for key, value in state["values"].items() if value is not GONE]
        return found is not None and all((key, found["values"][key]["value"]) in written
                                         for key in self.keys if key in found["values"])

    def wrong_history(self, acknowledged, entries, length):
        """Compare a key's history with the steps, of a chain of one key. Return what judge() returns."""
        key = self.keys[0]
        expected = []
        for number in range(acknowledged):
            what, state = self.steps[number]
            value = state["values"].get(key)
            if what == "purge":
                expected = []
            expected.append((self.answers[number][key], value_of(*value) if value else b""))
        wanted = expected[-length:]
        allowed = [revision for revision, _ in wanted]
        if acknowledged < len(self.steps):
            allowed += [self.answers[acknowledged][key]]
            # The step that was under way may have pushed out the oldest entry. A purge removes one after the other.
            wanted = [] if self.steps[acknowledged][0] == "purge" else expected[-length:][-(length - 1):]
        have = [(entry["revision"], entry["value"]) for entry in entries]
        missing = [revision for revision, value in wanted if (revision, value) not in have]
        extra = [revision for revision, _ in have if revision not in allowed]
        if not missing and not extra:
            return None
        sentence = (f"{self.name}: the history has the revisions {[revision for revision, _ in have]}, and should have "
                    f"{[revision for revision, _ in expected[-length:]]}")
        purges = [number for number, (what, _) in enumerate(self.steps[:acknowledged + 1]) if what == "purge"]
        purged = {answer[key] for answer in self.answers[:purges[-1]]} if purges else set()
        return sentence, "revived history" if not missing and purged.issuperset(extra) else None
