"""Valid requests of the methods that proto/protocol.md describes.

Each function is the grammar of a method, or of several. It takes a Context, and returns the
positional arguments and the options. Their form is valid; the key may still be absent, or at
another revision.
"""
import copy

import pools

CONSISTENCIES = ("direct", "leader", "cached")


class Context:
    """What a session draws from, and what it has learned from answers."""

    def __init__(self, rng, allowance, frame_depth):
        self.rng = rng
        self.allowance = allowance
        # Up to four containers are around a value: those of an operation of a transaction.
        self.value_depth = frame_depth - 5
        self.revisions = {}  # by (bucket, key)
        self.watch_ids = []
        self.msgid = 0  # the last one of this session
        self.locks = []  # [bucket, name, token] of those that this session has acquired

    def maybe(self, share):
        return self.rng.random() < share

    def bucket(self):
        return pools.bucket(self.rng)

    def key(self):
        return pools.key(self.rng)

    def value(self):
        return pools.value(self.rng, self.allowance, self.value_depth)

    def revision(self, bucket, key):
        """Return the last revision of the key that this session knows, or another one."""
        if self.maybe(0.8):
            return self.revisions.get((bucket, key), 0)
        return self.rng.choice((0, 1, 2, 5, 100, 2**32, 2**63 - 1))

    def learn_revision(self, bucket, key, revision):
        if len(self.revisions) > 200:
            self.revisions.clear()
        self.revisions[bucket, key] = revision


def put_options(context):
    options = {}
    if context.maybe(0.2):
        options["ttl"] = context.rng.choice((1, 1, 2, 60, 10**6))
    if context.maybe(0.2):
        options["headers"] = pools.headers(context.rng)
    return options


def kv_get(context):
    options = {}
    bucket, key = context.bucket(), context.key()
    if context.maybe(0.6):
        options["consistency"] = context.rng.choice(CONSISTENCIES)
    if context.maybe(0.2):
        options["revision"] = context.revision(bucket, key) or 1
    return [bucket, key], options


def kv_get_waiting(context):
    arguments, options = kv_get(context)
    if context.maybe(0.15):
        options.pop("revision", None)
        options["wait_above"] = context.rng.choice((0, 1, context.revision(*arguments) or 0, 2**40))
        options["timeout"] = context.rng.choice((0.05, 0.2, 1))
    return arguments, options


def kv_put(context):
    value = context.value() if context.maybe(0.9) else pools.json_text(context.rng)
    options = put_options(context)
    if context.maybe(0.1):
        options["ephemeral"] = context.maybe(0.9)
    return [context.bucket(), context.key(), value], options


def kv_update(context):
    bucket, key = context.bucket(), context.key()
    return [bucket, key, context.value(), context.revision(bucket, key)], put_options(context)


def kv_put_keeping_ttl(context):
    arguments, options = kv_put(context)
    if context.maybe(0.2):
        options["keep_ttl"] = context.maybe(0.8)
    return arguments, options


def kv_touch(context):
    bucket, key = context.bucket(), context.key()
    options = {"revision": context.revision(bucket, key) or 1} if context.maybe(0.3) else {}
    return [bucket, key, context.rng.choice((0, 1, 2, 100, 10**9))], options


def kv_increment(context):
    options = {"ttl": context.rng.choice((1, 2, 100))} if context.maybe(0.3) else {}
    if context.maybe(0.3):
        options["keep_ttl"] = context.maybe(0.5)
    if context.maybe(0.3):
        options["initial"] = context.rng.choice((0, -1, 2**63 - 1, -2**63))
    return [context.bucket(), context.key(), context.rng.choice((1, 1, -3, 0, 2**62, -2**63))], options


def kv_remove(context):
    bucket, key = context.bucket(), context.key()
    return [bucket, key], {"revision": context.revision(bucket, key) or 1} if context.maybe(0.4) else {}


def kv_delete(context):
    arguments, options = kv_remove(context)
    if not options and context.maybe(0.4):
        options["if_exists"] = context.maybe(0.8)
    return arguments, options


def kv_purge(context):
    arguments, options = kv_remove(context)
    if context.maybe(0.3):
        options["ttl"] = context.rng.choice((1, 2, 60))
    return arguments, options


def kv_history(context):
    return [context.bucket(), context.key()], {}


def kv_keys(context):
    options = {}
    if context.maybe(0.6):
        options["filter"] = context.rng.choice(pools.FILTERS)
    if context.maybe(0.4):
        options["limit"] = context.rng.choice((1, 2, 10, 1000, 10**9))
    if context.maybe(0.3):
        options["after"] = context.key()
    if context.maybe(0.5):
        options["consistency"] = context.rng.choice(("direct", "cached"))
    return [context.bucket()], options


def kv_entries(context):
    arguments, options = kv_keys(context)
    if context.maybe(0.5):
        options["limit"] = context.rng.choice((1, 2, 10, 1000, 1001))
    if context.maybe(0.2):
        options["consistency"] = "leader"
    return arguments, options


def bulk_get(context):
    options = {"consistency": context.rng.choice(CONSISTENCIES)} if context.maybe(0.7) else {}
    return [context.bucket(), pools.many_keys(context.rng)], options


def bulk_put(context):
    keys = pools.many_keys(context.rng)
    values = {key: context.value() for key in keys} if len(keys) <= 50 else dict.fromkeys(keys, "v")
    return [context.bucket(), values], {"ttl": context.rng.choice((1, 60))} if context.maybe(0.2) else {}


def bulk_delete(context):
    if context.maybe(0.2):
        return [context.bucket()], {"filter": context.rng.choice(pools.FILTERS)}
    return [context.bucket(), pools.many_keys(context.rng)], {}


def operation(context, bucket):
    kind = context.rng.choice(("put",) * 6 + ("create", "update", "update", "delete", "delete", "purge"))
    key = context.key()
    made = [kind, key]
    if kind in ("put", "create", "update"):
        made.append(context.value() if context.maybe(0.3) else "v")
    if kind == "update":
        made.append(context.revision(bucket, key))
    if kind in ("put", "create", "update") and context.maybe(0.2):
        made.append(put_options(context))
    return made


def txn_commit(context):
    bucket = context.bucket()
    share = context.rng.random()
    count = context.rng.randint(1, 6) if share < 0.9 else context.rng.choice((50, 999, 1000, 1001))
    operations = ([operation(context, bucket) for _ in range(count)] if count <= 50 else
                  [["put", key, "v"] for key in pools.numbered_keys(count)])
    keys = [context.key() for _ in range(context.rng.choice((0,) * 12 + (1, 1, 1, 2, 2, 10, 300, 4097)))]
    return [bucket, [[key, context.revision(bucket, key)] for key in keys], operations], {}


def bucket_settings(context, bucket):
    rng = context.rng
    origins = pools.ORDERED_BUCKETS[:pools.ORDERED_BUCKETS.index(bucket)] if bucket in pools.ORDERED_BUCKETS else []
    origin = rng.choice(origins) if origins else pools.MISSING_BUCKET
    offered = {
        "description": rng.choice(pools.TEXTS),
        "history": rng.randint(1, 64),
        "ttl": rng.choice((0, 1, 2, 3600, 10**8)),
        "max_value_size": rng.choice((-1, 0, 1, 100, 2**20, 2**31 - 70000)),
        "max_bytes": rng.choice((-1, 0, 1000, 10**6)),
        "storage": rng.choice(("file", "memory")),
        "replicas": rng.choice((1, 1, 1, 2, 5)),
        "compression": context.maybe(0.5),
        "placement": rng.choice(({}, {"cluster": "here"}, {"tags": ["ssd", "eu"]}, {"cluster": "", "tags": []})),
        "republish": {"destination": rng.choice(("told.>", "told.x", "")), "source": rng.choice(("$KV.*.>", ">", "a")),
                      "headers_only": context.maybe(0.5)},
        "mirror": rng.choice((origin, {"bucket": origin}, {"bucket": origin, "domain": "hub"})),
        "sources": [rng.choice((origin, {"bucket": origin, "filter": "a.*.>"}, {"bucket": origin, "domain": "hub"}))
                    for _ in range(rng.randint(0, 3))],
        "metadata": dict.fromkeys(rng.sample(pools.TEXTS, rng.randint(0, 4)), "m"),
        "limit_marker_ttl": rng.choice((0, 1, 60)),
        "marker_ttl": rng.choice((0, 1, 120, 604800)),
    }
    return {name: offered[name] for name in rng.sample(list(offered), rng.choice((0, 1, 1, 2, 3)))}


def bucket_create(context):
    if context.maybe(0.4):
        bucket = context.rng.choice(list(pools.BUCKETS))
        return [bucket], copy.deepcopy(pools.BUCKETS[bucket])  # mutations change it
    if context.maybe(0.6):
        return [context.rng.choice(pools.PASSING_BUCKETS)], {}
    bucket = context.rng.choice((*pools.PASSING_BUCKETS, pools.LONG_BUCKET, context.bucket()))
    options = {"update": True, "force": context.maybe(0.5)} if context.maybe(0.3) else {}
    return [bucket], {**bucket_settings(context, bucket), **options}


def bucket_update(context):
    bucket = context.rng.choice(pools.PASSING_BUCKETS) if context.maybe(0.8) else context.bucket()
    if bucket == pools.OLD_BUCKET and context.maybe(0.9):
        bucket = pools.MISSING_BUCKET  # an update gives the old bucket the features that it should lack
    settings = bucket_settings(context, bucket)
    if context.maybe(0.5):
        settings["force"] = context.maybe(0.8)
    return [bucket], settings


def bucket_delete(context):
    passing = pools.PASSING_BUCKETS * 2
    return [context.rng.choice((*passing, pools.LONG_BUCKET, "fz-expiring", "fz-fed", pools.MISSING_BUCKET))], {}


def one_bucket(context):
    return [context.bucket()], {}


def bucket_purge(context):
    return [context.bucket()], {"filter": context.rng.choice(pools.FILTERS)} if context.maybe(0.5) else {}


def bucket_compact(context):
    return [context.bucket()], {"older_than": context.rng.choice((0, 0, 1, 3600))} if context.maybe(0.8) else {}


def bucket_list(context):
    options = {"filter": context.rng.choice(pools.PATTERNS)} if context.maybe(0.7) else {}
    if context.maybe(0.4):
        options["infos"] = context.maybe(0.7)
    if context.maybe(0.3):
        options["limit"] = context.rng.choice((1, 2, 1000, 1001))
    if context.maybe(0.3):
        options["after"] = context.bucket()
    return [], options


def lock_acquire(context):
    rng = context.rng
    options = {}
    if context.maybe(0.6):
        options["wait"] = rng.choice((0, 0.01, 0.5, 2))
    if context.maybe(0.3):
        options["value"] = rng.choice(("me", b"me", "", "x" * 1024))
    if context.maybe(0.3):
        options["owner"] = rng.choice(("owner-0001", "owner-0002", "x" * 36))
    return [context.bucket(), context.key()], options


def lock_held(context):
    share, bucket, key = context.rng.random(), context.bucket(), context.key()
    other = [bucket, key, context.revision(bucket, key) or 1]
    if share < 0.8 and context.locks:
        return list(context.locks[-1 - int(share / 0.8 * min(len(context.locks), 4))]), {}
    return other, {}


def watch_start(context):
    rng = context.rng
    options = {}
    if context.maybe(0.7):
        count = rng.choice((1, 2, 5, 64))
        options["filter"] = (rng.choice(pools.FILTERS) if context.maybe(0.5) else
                             [rng.choice(pools.FILTERS) for _ in range(count)])
    beginning = rng.choice((None, "include_history", "updates_only", "from_revision"))
    if beginning:
        options[beginning] = rng.choice((1, 1, 5, 1000, 2**62)) if beginning == "from_revision" else True
    for name in ("ignore_deletes", "meta_only", "snapshot"):
        if context.maybe(0.3):
            options[name] = context.maybe(0.8)
    if "meta_only" not in options and context.maybe(0.2):
        options["previous"] = True
    return [context.bucket()], options


def watch_stop(context):
    # The draws are the same whether there are watches or not.
    share, other = context.rng.random(), context.rng.choice((0, 1, 2, 10, 2**64 - 1))
    if share < 0.8 and context.watch_ids:
        return [context.watch_ids[int(share / 0.8 * len(context.watch_ids))]], {}
    return [other], {}


def call_cancel(context):
    # The last calls are those in flight, and the msgids of a session are consecutive.
    rng = context.rng
    if context.maybe(0.8):
        return [(context.msgid - rng.randint(0, 40)) & 0xFFFFFFFF], {}
    return [rng.choice((0, 1, 120, 2**32 - 1))], {}


def session_configure(context):
    return [], {"errors": context.rng.choice(("map", "text"))} if context.maybe(0.8) else {}


def health_check(context):
    return [context.bucket()] if context.maybe(0.6) else [], {}


def daemon_sessions(context):
    orders = ("rate", "calls", "in_flight", "bytes", "traffic", "watches", "age")
    offered = {"sort": context.rng.choice(orders), "limit": context.rng.choice((1, 2, 100, 1000))}
    return [], {name: offered[name] for name in context.rng.sample(list(offered), context.rng.randint(0, 2))}


def daemon_kill_session(context):
    # Ids of no session: see mutation.kills_a_session.
    return [context.rng.choice((0, 2**32, 2**53, 2**63, 2**64 - 1))], {}


def nothing(_context):
    return [], {}


# The grammar of each method, and how often it is drawn.
METHODS = {
    "kv.get": (kv_get_waiting, 6),
    "kv.get_json": (kv_get, 3),
    "kv.put": (kv_put_keeping_ttl, 8),
    "kv.create": (kv_put, 4),
    "kv.update": (kv_update, 5),
    "kv.increment": (kv_increment, 6),
    "kv.touch": (kv_touch, 4),
    "kv.delete": (kv_delete, 4),
    "kv.purge": (kv_purge, 3),
    "kv.history": (kv_history, 3),
    "kv.keys": (kv_keys, 3),
    "kv.entries": (kv_entries, 3),
    "bulk.get": (bulk_get, 4),
    "bulk.put": (bulk_put, 4),
    "bulk.delete": (bulk_delete, 3),
    "txn.commit": (txn_commit, 6),
    "bucket.create": (bucket_create, 3),
    "bucket.update": (bucket_update, 2),
    "bucket.delete": (bucket_delete, 0.5),
    "bucket.purge": (bucket_purge, 0.6),
    "bucket.compact": (bucket_compact, 1),
    "bucket.info": (one_bucket, 2),
    "bucket.list": (bucket_list, 1),
    "lock.acquire": (lock_acquire, 6),
    "lock.check": (lock_held, 2),
    "lock.release": (lock_held, 4),
    "watch.start": (watch_start, 4),
    "watch.stop": (watch_stop, 3),
    "call.cancel": (call_cancel, 3),
    "session.configure": (session_configure, 0.5),
    "health.check": (health_check, 1),
    "daemon.info": (nothing, 1),
    "daemon.stats": (nothing, 1),
    "daemon.metrics": (nothing, 1),
    "daemon.dump": (nothing, 1),
    "daemon.config": (nothing, 1),
    "daemon.sessions": (daemon_sessions, 1),
    "daemon.kill_session": (daemon_kill_session, 0.5),
}

# Writes that may be repeated. No two calls have the same id: that is the client's duty.
WRITES_WITH_ID = {"kv.put", "kv.create", "kv.update", "kv.delete", "kv.purge", "kv.increment", "kv.touch", "bulk.put",
                  "bulk.delete", "txn.commit"}


def add_id(context, options):
    rng = context.rng
    options["id"] = rng.choice((rng.randbytes(16), rng.randbytes(16).hex(), rng.randbytes(36), rng.randbytes(8)))
    if context.maybe(0.5):
        options["first_sent"] = rng.choice((0, 1, 10**6, 2**62, 2**63 - 1))


def arguments_of(method, context):
    """Draw the arguments and the options of a call."""
    arguments, options = METHODS[method][0](context)
    if method in WRITES_WITH_ID and context.maybe(0.2):
        add_id(context, options)
    return arguments, options
