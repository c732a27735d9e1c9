"""Names and values that requests consist of.

There are few of each, so that requests meet on the same key, in the same bucket, and with a revision
that is right.
"""
import math
import random

from msgpack import ExtType, Timestamp

from wire import Pairs, Text, Wide

# A bucket gets its values only from buckets before it: a cycle would fill the disk.
BUCKETS = {
    "fz-plain": {},
    "fz-history": {"history": 64},
    "fz-memory": {"storage": "memory", "history": 5},
    "fz-expiring": {"ttl": 2, "limit_marker_ttl": 1},
    "fz-small": {"max_value_size": 64, "max_bytes": 65536},
    "fz-packed": {"compression": True, "description": "compressed", "metadata": {"owner": "fuzz"}},
    "fz-told": {"republish": {"destination": "told.>"}},
    "fz-mirror": {"mirror": "fz-plain"},
    "fz-fed": {"sources": ["fz-plain", {"bucket": "fz-history", "filter": "a.>"}]},
}
# It has some thousands of keys most of the time.
FULL_BUCKET = "fz-history"
# A bucket as older clients create it, without allow_atomic and allow_msg_ttl. It is created through
# NATS, past the daemon.
OLD_BUCKET = "fz-old"
# Requests create and delete these all the time.
PASSING_BUCKETS = [f"fz-passing{number}" for number in range(4)]
LONG_BUCKET = "B" * 251
MISSING_BUCKET = "fz-missing"
BYSTANDER_BUCKET = "bystander"
ORDERED_BUCKETS = [*BUCKETS, OLD_BUCKET, *PASSING_BUCKETS]

KEYS = [f"k{number}" for number in range(24)] + [
    "a", "a.b", "a.b.c", "a.b.d", "a.x.c", "b.c", "x/y=z-_1", "-", "_", "=", "/", "0",
    ".".join("t" * 200), "L" * 1024]
FILTERS = [">", "*", "a.>", "a.*", "a.*.c", "*.b", "*.*.>", "k1", "nobody.>", "a.b.c", "*.*.*", "b.>",
           "L" * 1024, "*." * 511 + ">"]
# Of bucket.list: shell patterns.
PATTERNS = ["*", "fz-*", "?z-*", "fz-[a-m]*", "fz-plain", "", "[", "[!f]*", "\\", "*" * 100, "nobody",
            "*B" * 30 + "c", "*[!a]" * 100, "*[" * 1000]

HEADERS = {"Trace": "abc", "X-Note": "a value with blanks", "lang": "de", "x" * 200: "y" * 500}

TEXTS = ["", "a", "blue", "x" * 31, "x" * 32, "x" * 255, "x" * 256, "ünïcödé", "\U0001F600" * 10, "a\tb\nc",
         '"\\"', "0", "null"]
TIMEOUTS = [0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10]
INTEGERS = [0, 1, 2, 3, 7, 31, 32, 63, 64, 65, 127, 128, 255, 256, 1000, 65535, 65536, 10**6,
            2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1,
            -1, -2, -32, -33, -128, -2**15, -2**31, -2**31 - 1, -2**63]
FLOATS = [0.0, -0.0, 0.5, 1.0, -1.0, 1e-9, 1e300, -1e300, math.inf, -math.inf, math.nan]
BROKEN_UTF8 = [b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\x80", b"\xc0\x80", b"\xed\xa0\x80"]
BAD_NAMES = ["a..b", ".a", "a.", "a b", "a*", "a.>.b", "$KV", "ä", "a\0", "\0", "a\0b", "a\x7f"]

# Large values may take so much of the disk.
LARGE_BYTES_MAX = 50_000_000
LARGE_BYTES_PER_S = 3_000_000


def new_rng(*seed):
    """Return a generator for one part of a run, so that its draws do not shift those of another."""
    return random.Random("/".join(map(str, seed)))


class Allowance:
    """The bytes that large values may still take. It grows with time, up to a maximum."""

    def __init__(self, clock):
        self.clock = clock
        self.left = LARGE_BYTES_MAX
        self.counted_at = clock()

    def take(self, size):
        now = self.clock()
        self.left = min(self.left + (now - self.counted_at) * LARGE_BYTES_PER_S, LARGE_BYTES_MAX)
        self.counted_at = now
        if size > self.left:
            return False
        self.left -= size
        return True


# --- Names -------------------------------------------------------------------------------------------


def bucket(rng):
    share = rng.random()
    if share < 0.15:
        return OLD_BUCKET
    if share < 0.30:
        return rng.choice(PASSING_BUCKETS)
    if share < 0.32:
        return MISSING_BUCKET
    return rng.choice(list(BUCKETS))


def key(rng):
    if rng.random() < 0.05:
        return ".".join(rng.choice("abcxyz019-_=/") * rng.randint(1, 9) for _ in range(rng.randint(1, 5)))
    return rng.choice(KEYS)


def many_keys(rng):
    """Return keys for one bulk call: sometimes thousands, sometimes one of them twice."""
    share = rng.random()
    if share < 0.8:
        return [key(rng) for _ in range(rng.randint(0, 20))]
    count = rng.randint(20, 300) if share < 0.95 else rng.choice((1000, 1024, 1025, 2000, 5000, 16_384, 16_385))
    # Few ranges of numbers, so that a get finds what a put has written.
    first = rng.choice((0, 0, 1000, 100_000))
    return numbered_keys(count, first)


def numbered_keys(count, first=0):
    return [f"many.{number}" for number in range(first, first + count)]


# --- Values ------------------------------------------------------------------------------------------


def json_value(rng, depth=0):
    """Return a value that can be stored as JSON."""
    share = rng.random()
    if depth < 4 and share < 0.2:
        return [json_value(rng, depth + 1) for _ in range(rng.randint(0, 4))]
    if depth < 4 and share < 0.45:
        return {rng.choice(TEXTS): json_value(rng, depth + 1) for _ in range(rng.randint(0, 4))}
    return rng.choice((None, True, False, rng.choice(TEXTS), rng.randint(-2**63, 2**63 - 1), rng.random(), 1e300))


def nested(rng, depth):
    """Return a value for JSON that is nested that deep."""
    made = rng.choice((1, "x", None, [], {}))
    for _ in range(depth):
        made = [made] if rng.random() < 0.5 else {"n": made}
    return made


def value(rng, allowance, depth_max):
    """Return a value to be stored. It is nested at most depth_max deep."""
    share = rng.random()
    if share < 0.6:
        return rng.choice(TEXTS)
    if share < 0.7:
        return rng.randbytes(rng.randint(0, 300))
    if share < 0.82:
        made = json_value(rng)
        return made if isinstance(made, (list, dict)) else [made]
    if share < 0.85:
        return nested(rng, rng.randint(1, depth_max))
    if share < 0.97:
        return b"v" * rng.choice((1000, 4000, 4096, 8191))
    # Up to and over the largest payload of NATS.
    size = rng.choice((65535, 65536, 200_000, 2**20 - 2000, 2**20 - 512, 2**20, 2**20 + 1))
    return b"V" * size if allowance.take(size) else b"v"


def json_text(rng):
    """Return a text for kv.get_json to parse; some are not JSON."""
    return rng.choice(('{"a": [1, 2.5, null, true, "x"]}', "[]", "1", '"x"', "null", "[" * 20 + "]" * 20,
                       '{"a\\u0000b": 1}', '["\\u0000"]', "[1e999]", "[12345678901234567890]", '{"a":1,"a":2}', "[1,]"))


def headers(rng):
    if rng.random() < 0.03:
        return {f"H{number}": "v" for number in range(rng.choice((100, 1000, 1001)))}
    return dict(rng.sample(list(HEADERS.items()), rng.randint(0, len(HEADERS))))


# --- What is probably wrong --------------------------------------------------------------------------


def broken_text(rng):
    """Return bytes that are not UTF-8, at their beginning, in the middle or at the end."""
    broken = rng.choice(BROKEN_UTF8)
    return rng.choice((broken, b"k" + broken, broken + b"k", b"a." + broken + b".b", b"x" * 62 + broken))


def extension(rng):
    return ExtType(rng.randint(0, 127), rng.randbytes(rng.choice((0, 1, 2, 3, 4, 8, 16, 17))))


JUNK = (
    lambda rng: None,
    lambda rng: rng.random() < 0.5,
    lambda rng: rng.choice(INTEGERS),
    lambda rng: rng.choice(INTEGERS),
    lambda rng: Wide(rng.choice(INTEGERS)),
    lambda rng: rng.choice(FLOATS),
    lambda rng: rng.choice(TEXTS),
    lambda rng: rng.choice(KEYS),
    lambda rng: rng.choice(FILTERS),
    lambda rng: "fz-plain",
    lambda rng: rng.choice(BAD_NAMES),
    lambda rng: Text(broken_text(rng)),
    broken_text,
    lambda rng: rng.randbytes(rng.randint(0, 40)),
    extension,
    lambda rng: Timestamp(rng.choice((0, 2**33)), rng.choice((0, 1))),
    lambda rng: [],
    lambda rng: {},
    lambda rng: [rng.choice(KEYS)],
    lambda rng: [None] * rng.choice((1, 3, 100)),
    lambda rng: {rng.choice(KEYS): rng.choice(TEXTS)},
    lambda rng: Pairs([[1, 2], [None, None], ["a", "b"], ["a", "c"]]),
    lambda rng: nested(rng, rng.randint(1, 6)),
)


def junk(rng):
    """Return a value that is probably wrong in any place."""
    return rng.choice(JUNK)(rng)
