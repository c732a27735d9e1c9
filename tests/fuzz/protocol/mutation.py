"""Mutations of valid requests, and of the envelope around them."""
from msgpack import ExtType

import pools
from wire import Pairs, Text, Wide, map_items, text_bytes

# How much longer lists become: enough that their end is in another chunk of memory than their beginning.
LONG_LIST = (100, 1025, 5000, 5000, 17_000)
LONG_TEXT = (32, 65, 252, 256, 1025, 4096, 65536, 2**20)
LONG_PATTERNS = ("a.", "*.", "*", "*a", "?", "[a-", "[!a]", ">", ">.", "a*", "\\", "**a*")


class Slot:
    """A place in a tree of lists and maps."""

    def __init__(self, container, index, half=None):
        self.container = container
        self.index = index
        self.half = half  # of a member of a map: 0 is its key, 1 its value

    @property
    def value(self):
        return self.container[self.index] if self.half is None else self.container.items[self.index][self.half]

    @value.setter
    def value(self, value):
        if self.half is None:
            self.container[self.index] = value
        else:
            self.container.items[self.index][self.half] = value


def random_slot(rng, params):
    """Return a slot of the params, an outer one more often than an inner one. None: there is none."""
    container, slot = params, None
    while True:
        # The ends are drawn more often: that is where code makes mistakes.
        if type(container) is list and container:
            index = rng.choice((0, len(container) - 1, rng.randrange(len(container))))
            slot = Slot(container, index)
        elif type(container) is Pairs and container.items:
            index = rng.choice((0, len(container.items) - 1, rng.randrange(len(container.items))))
            slot = Slot(container, index, rng.randint(0, 1))
        else:
            return slot
        if type(slot.value) is dict:
            slot.value = Pairs(slot.value.items())
        if type(slot.value) not in (list, Pairs) or rng.random() < 0.35:
            return slot
        container = slot.value


# --- Mutations of a value ----------------------------------------------------------------------------


def to_junk(rng, slot):
    slot.value = pools.junk(rng)


def to_nil(_rng, slot):
    slot.value = None


def to_empty(rng, slot):
    slot.value = rng.choice(("", b"", [], {}))


def insert(rng, data, piece):
    at = rng.choice((0, len(data), len(data) // 2))
    return data[:at] + piece + data[at:]


def with_nul(rng, slot):
    data = text_bytes(slot.value)
    slot.value = Text(insert(rng, data if data is not None else b"a", b"\0"))


def with_broken_utf8(rng, slot):
    data = text_bytes(slot.value)
    broken = insert(rng, data if data is not None else b"a", rng.choice(pools.BROKEN_UTF8))
    slot.value = broken if rng.random() < 0.3 else Text(broken)


def to_another_type(rng, slot):
    value = slot.value
    data = text_bytes(value)
    if data is not None:
        slot.value = rng.choice((data, Text(data), ExtType(rng.randint(0, 127), data[:65536]), len(data), [value]))
    elif isinstance(value, (int, float)):
        slot.value = rng.choice((float(value), str(value), str(value).encode(), [value], bool(value)))
    elif isinstance(value, list):
        slot.value = rng.choice((Pairs([element, 1] for element in value), len(value), str(len(value))))
    else:
        slot.value = rng.choice((0, "", [], True))


def to_extreme_number(rng, slot):
    slot.value = rng.choice((*pools.INTEGERS, *pools.FLOATS, *map(Wide, pools.INTEGERS)))


def to_long_text(rng, slot):
    length = rng.choice(LONG_TEXT)
    slot.value = rng.choice(("k", "ü", " ", "\0", ".")) * length


def to_long_pattern(rng, slot):
    piece = rng.choice(LONG_PATTERNS)
    slot.value = piece * (rng.choice(LONG_TEXT) // len(piece) + 1) + rng.choice(("", ">", "b", "*"))


def nest(rng, slot):
    for _ in range(rng.choice((1, 1, 2, 2, 3, 5, 8, 9, 10, 28, 29, 30))):
        slot.value = [slot.value] if rng.random() < 0.7 else Pairs([["n", slot.value]])


# --- Mutations of a list or map ----------------------------------------------------------------------


def members(value):
    """Return the elements of a list or the members of a map, to be changed in place."""
    return value if type(value) is list else value.items if type(value) is Pairs else None


def copy_of(member):
    return list(member) if type(member) is list else member


def duplicate(rng, slot):
    elements = members(slot.value)
    if elements:
        elements.insert(rng.randint(0, len(elements)), copy_of(rng.choice(elements)))


def drop(rng, slot):
    elements = members(slot.value)
    if elements:
        elements.pop(rng.randrange(len(elements)))


def shuffle(rng, slot):
    elements = members(slot.value)
    if elements:
        rng.shuffle(elements)


def bad_member(rng, value):
    """Return an element for a list, or a member for a map, that is probably wrong."""
    bad = rng.choice((None, "a\0b", "", "a..b", Text(b"\xff"), 7, pools.junk(rng)))
    return bad if type(value) is list else [bad, rng.choice(("v", None))]


def append_bad(rng, slot):
    elements = members(slot.value)
    if elements is not None:
        elements.append(bad_member(rng, slot.value))


def prolong(rng, slot):
    """Add up to thousands of good elements, and at times a bad one after them."""
    elements = members(slot.value)
    if elements is None:
        return
    length = rng.choice(LONG_LIST)
    if type(slot.value) is list:
        elements += pools.numbered_keys(length)
    else:
        elements += [[key, "v"] for key in pools.numbered_keys(length)]
    if rng.random() < 0.6:
        elements.append(bad_member(rng, slot.value))


VALUE_MUTATIONS = (to_junk, to_junk, to_nil, to_empty, with_nul, with_broken_utf8, to_another_type, to_extreme_number,
                   to_long_text, to_long_pattern, nest)
LIST_MUTATIONS = (duplicate, drop, shuffle, append_bad, prolong)


def mutate(rng, params):
    """Apply one to three mutations to the params of a request, in place."""
    for index, member in enumerate(params):
        if type(member) is dict:
            params[index] = Pairs(member.items())
    for _ in range(rng.choice((1, 1, 2, 3))):
        slot = random_slot(rng, params)
        share = rng.random()
        if slot is None or share < 0.08:
            params.append(rng.choice((pools.junk(rng), {}, {"timeout": 1}, {"no-such-option": 1})))
        elif share < 0.13:
            params.pop(rng.randrange(len(params)))
        elif members(slot.value) is not None and rng.random() < 0.7:
            rng.choice(LIST_MUTATIONS)(rng, slot)
        else:
            rng.choice(VALUE_MUTATIONS)(rng, slot)


def odd_text(rng):
    """Return a text that is allowed in few places: not UTF-8, with control characters, or long."""
    return rng.choice((Text(pools.broken_text(rng)), Text(pools.broken_text(rng)), pools.broken_text(rng), "a\0b",
                       "a\r\nb: c", "", " a", "a ", "ü", "Nats-Msg-Id", "KV-Operation", "_nats.x", "kvstored.x", "*",
                       ">", "$JS.API.>", "x" * 70_000))


def odd_texts(rng, name):
    """Return a map of texts, of which one is odd. The name is that of a member whose value is odd."""
    return rng.choice((Pairs([[name, odd_text(rng)]]), Pairs([[name, odd_text(rng)]]), Pairs([[odd_text(rng), "v"]]),
                       Pairs([[name, "a"], [name, "b"]])))


# The values that an option may have: of the right type, and odd.
ODD_OPTIONS = {
    "timeout": lambda rng: rng.choice((0, -1, 60, 60.001, 61, "1", 1e-9, 0.0004, *pools.TIMEOUTS)),
    "headers": lambda rng: odd_texts(rng, "Trace"),
    "metadata": lambda rng: odd_texts(rng, "owner"),
    "placement": lambda rng: odd_texts(rng, "cluster"),
    "republish": lambda rng: odd_texts(rng, "destination"),
    "mirror": lambda rng: odd_texts(rng, "bucket"),
    "sources": lambda rng: [odd_texts(rng, "filter")],
    "description": odd_text,
    "storage": odd_text,
    "consistency": odd_text,
    "filter": lambda rng: rng.choice((odd_text(rng), [odd_text(rng)], ["a"] * 65)),
    "after": odd_text,
}


def odd_option(rng, name):
    """Return an odd value for an option. An option that is not known here is taken for a number."""
    if rng.random() < 0.2:
        return pools.junk(rng)
    return ODD_OPTIONS[name](rng) if name in ODD_OPTIONS else rng.choice(pools.INTEGERS)


def mutate_options(rng, options, names):
    """Return the options with one more: of the given names or an unknown one, and with an odd value."""
    items = list(options.items())
    if rng.random() < 0.15:
        unknown = ("no-such-option", "", "timeout\0", "ttl ", Text(b"\xff"), 1, None, "x" * 300)
        items.append([rng.choice(unknown), 1])
    else:
        name = rng.choice(names)
        items.insert(rng.choice((0, len(items))), [name, odd_option(rng, name)])
    return Pairs(items)


# --- Requests that must not be sent ------------------------------------------------------------------


def feeds_a_cycle(method, params):
    """Tell whether the request may create a cycle of buckets, which NATS would follow until the disk is full.

    A bucket may have as sources only those before it in pools.ORDERED_BUCKETS, and may republish
    only to subjects of no bucket.
    """
    if not method.startswith("bucket.") or not params:
        return False
    for name, value in map_items(params[-1]) or ():
        if name in ("mirror", "sources") or text_bytes(name) in (b"mirror", b"sources"):
            name_of_bucket = (text_bytes(params[0]) or b"").decode(errors="replace")
            ordered = pools.ORDERED_BUCKETS
            allowed = ordered[:ordered.index(name_of_bucket)] if name_of_bucket in ordered else [pools.MISSING_BUCKET]
            if any(text in ordered and text not in allowed for text in texts_in(value)):
                return True
        if text_bytes(name) == b"republish" and any("told" not in text and "." in text for text in texts_in(value)
                                                    if text not in ("$KV.*.>", ">")):
            return True
    return False


def waits_for_long(method, params):
    """Return whether the call may wait for a lock for so long that no answer is expected during the run."""
    if method != "lock.acquire" or not params:
        return False
    waits = [value for name, value in map_items(params[-1]) or () if text_bytes(name) == b"wait"]
    return any(not isinstance(wait, (int, float)) or not wait <= 3 for wait in waits)


def kills_a_session(method, params):
    """Tell whether the request may end a session: of this run, which would look like a fault, or the bystander's."""
    if method != "daemon.kill_session" or not params:
        return False
    number = params[0].number if isinstance(params[0], Wide) else params[0]
    return isinstance(number, (int, float)) and 0 < number < 2**32


def texts_in(value):
    """Yield every text in a value."""
    data = text_bytes(value)
    if data is not None:
        yield data.decode(errors="replace")
    elif isinstance(value, (list, tuple)):
        for element in value:
            yield from texts_in(element)
    else:
        for key, member in map_items(value) or ():
            yield from texts_in(key)
            yield from texts_in(member)


# --- The envelope ------------------------------------------------------------------------------------


def broken_envelope(rng, msgid):
    """Return a message that is neither request nor notification, and the msgid of its answer."""
    return rng.choice((
        ([], None),
        ({}, None),
        ("kv.get", None),
        (None, None),
        ([0], None),
        ([3, msgid, "daemon.info", []], None),
        ([-1, msgid, "daemon.info", []], None),
        (["0", msgid, "daemon.info", []], None),
        ([[0], msgid, "daemon.info", []], None),
        ([0, -1, "daemon.info", []], None),
        ([0, 2**32, "daemon.info", []], None),
        ([0, "1", "daemon.info", []], None),
        ([0, None, "daemon.info", []], None),
        ([0, float(msgid), "daemon.info", []], None),
        ([0, msgid], msgid),
        ([0, msgid, "daemon.info"], msgid),
        ([0, msgid, "daemon.info", [], {}], msgid),
        ([0, msgid, None, []], msgid),
        ([0, msgid, 7, []], msgid),
        ([0, msgid, ["daemon.info"], []], msgid),
        ([0, msgid, "daemon.info", {"x": 1}], msgid),
        ([0, msgid, "daemon.info", 0], msgid),
        ([0, msgid, "daemon.info", "x" * 100], msgid),
        ([1, msgid, None, None], msgid),
        ([1, None, None, None], None),
        ([1, msgid, "x"], msgid),
        ([2], None),
        ([2, "daemon.info"], None),
        ([2, "daemon.info", [], []], None),
        ([2, 7, []], None),
        ([2, "daemon.info", True], None),
    ))


def unknown_method(rng):
    return rng.choice(("", "kv", "kv.", "kv.get\0", "kv.gett", "KV.GET", "x" * 63 + "ü", "ü" * 40, "kv.get" * 1000,
                       Text(b"\xff"), Text(b"kv.get\xc3"), Text(b"x" * 63 + b"\xc3\xbc"), b"\xff\xfe", "\0", "%s%n"))


# --- Bytes that end a session ------------------------------------------------------------------------


def last_message(rng, msgid, limits):
    """Return bytes after which the daemon ends the session, and the msgid of the answer to them."""
    request = bytes([0x94, 0, 0xCE]) + msgid.to_bytes(4, "big")
    deep = limits["frame_depth"] + rng.choice((0, 1, 100))
    return rng.choice((
        (b"\xc1", None),
        (request + b"\xc1", msgid),
        (request + b"\xa3kv.\xc1", msgid),
        (request + b"\x91" * deep, msgid),
        (b"\x91" * (deep + 1), None),
        (b"\xdd\xff\xff\xff\xff", None),
        (b"\xdf\xff\xff\xff\xff", None),
        (request + b"\xdd\xff\xff\xff\xff", msgid),
        (request + b"\xdf\x80\x00\x00\x00", msgid),
        (b"\xdb\xff\xff\xff\xff", None),
        (b"\xc6\xff\xff\xff\xff", None),
        (b"\xc9\xff\xff\xff\xff\x01", None),
        (b"\x93\x02\xc6\xff\xff\xff\xff", None),
        (request + b"\xa1x" + b"\xdc\xff\xff" * 40, msgid),
    ))


def noise(rng):
    """Return random bytes."""
    return rng.randbytes(rng.choice((1, 2, 5, 100, 10_000)))
