"""MessagePack as a hostile client may write it.

encode() takes Python values and the classes below. They stand for what the msgpack package refuses
to write: a str that is not UTF-8, a map that has a key twice, an integer in its longest form.
"""
import struct

import msgpack

# The msgpack package packs a list of more plain values, in C.
FAST_PATH_MIN = 32
PLAIN_TYPES = frozenset((str, bytes, int, float, bool, type(None)))


class Text:
    """A str of any bytes."""

    def __init__(self, data):
        self.data = data

    def __repr__(self):
        return f"Text({self.data!r})"


class Pairs:
    """A map, as a list of [key, value] lists. Keys may have any type, and may repeat."""

    def __init__(self, items):
        self.items = [list(item) for item in items]

    def __repr__(self):
        return f"Pairs({self.items!r})"


class Wide:
    """An integer in its longest form of 9 bytes."""

    def __init__(self, number):
        self.number = number

    def __repr__(self):
        return f"Wide({self.number})"


class Encoded:
    """The bytes of a value, and what the daemon limits: the number of values in it, their nesting."""

    def __init__(self, odd_rng):
        self.chunks = []
        self.elements = 0
        self.depth = 0
        self.odd_rng = odd_rng

    @property
    def data(self):
        return b"".join(self.chunks)


# The forms of a header, the shortest first: the greatest length, the layout, the first byte.
# Without a layout the length is in the first byte.
STR_FORMS = ((31, None, 0xA0), (0xFF, ">BB", 0xD9), (0xFFFF, ">BH", 0xDA), (0xFFFFFFFF, ">BI", 0xDB))
BIN_FORMS = ((0xFF, ">BB", 0xC4), (0xFFFF, ">BH", 0xC5), (0xFFFFFFFF, ">BI", 0xC6))
ARRAY_FORMS = ((15, None, 0x90), (0xFFFF, ">BH", 0xDC), (0xFFFFFFFF, ">BI", 0xDD))
MAP_FORMS = ((15, None, 0x80), (0xFFFF, ">BH", 0xDE), (0xFFFFFFFF, ">BI", 0xDF))


def header(forms, length, odd_rng=None):
    """Return the header for a length: the shortest form, or with a generator a random one."""
    fitting = [form for form in forms if length <= form[0]]
    _, layout, first = odd_rng.choice(fitting) if odd_rng else fitting[0]
    return bytes([first | length]) if layout is None else struct.pack(layout, first, length)


def encode(value, odd_rng=None):
    """Encode a value. With a generator, headers have random forms instead of the shortest ones."""
    encoded = Encoded(odd_rng)
    _encode(value, encoded, 1)
    return encoded


def _encode(value, encoded, depth):
    kind = type(value)
    if kind in (list, tuple):
        _encode_list(value, encoded, depth)
    elif kind in (dict, Pairs):
        _encode_map(value.items() if kind is dict else value.items, encoded, depth)
    else:
        encoded.elements += 1
        _encode_leaf(value, kind, encoded)


def _encode_list(value, encoded, depth):
    encoded.depth = max(encoded.depth, depth)
    encoded.elements += 1
    is_plain = not encoded.odd_rng and len(value) >= FAST_PATH_MIN and PLAIN_TYPES.issuperset(map(type, value))
    if is_plain:
        encoded.chunks.append(msgpack.packb(value))
        encoded.elements += len(value)
        return
    encoded.chunks.append(header(ARRAY_FORMS, len(value), encoded.odd_rng))
    for element in value:
        _encode(element, encoded, depth + 1)


def _encode_map(items, encoded, depth):
    encoded.depth = max(encoded.depth, depth)
    encoded.elements += 1
    encoded.chunks.append(header(MAP_FORMS, len(items), encoded.odd_rng))
    for key, member in items:
        _encode(key, encoded, depth + 1)
        _encode(member, encoded, depth + 1)


def _encode_leaf(value, kind, encoded):
    if kind is Text or (kind is str and encoded.odd_rng):
        data = text_bytes(value)
        encoded.chunks += (header(STR_FORMS, len(data), encoded.odd_rng), data)
    elif kind is bytes and encoded.odd_rng:
        encoded.chunks += (header(BIN_FORMS, len(value), encoded.odd_rng), value)
    elif kind is Wide:
        layout, first = (">BQ", 0xCF) if value.number >= 0 else (">Bq", 0xD3)
        encoded.chunks.append(struct.pack(layout, first, value.number))
    else:
        encoded.chunks.append(msgpack.packb(value))


def text_bytes(value):
    """Return the bytes of a str or bin, however it is represented; None for other types."""
    kind = type(value)
    if kind is str:
        return value.encode()
    if kind is bytes:
        return value
    return value.data if kind is Text else None


def map_items(value):
    """Return the members of a map, however it is represented; None for other types."""
    if type(value) is dict:
        return list(value.items())
    return value.items if type(value) is Pairs else None


def option_of(params, name):
    """Return an option's value as the daemon finds it: the first of that name."""
    for key, value in map_items(params[-1]) or () if params else ():
        if text_bytes(key) == name.encode():
            return value
    return None


class StrictUnpacker(msgpack.Unpacker):
    """A decoder for answers that is as strict as any client's may be."""

    def __init__(self):
        super().__init__(raw=False, strict_map_key=True, object_pairs_hook=self.map_of, max_buffer_size=1 << 28)
        self.repeated = None  # the members of a map that has a key twice, since the caller set this to None

    def map_of(self, pairs):
        made = dict(pairs)
        if len(made) != len(pairs):
            self.repeated = pairs
        return made


def lenient_unpacker():
    """Return a decoder that takes what the strict one refuses."""
    return msgpack.Unpacker(raw=True, strict_map_key=False, max_buffer_size=1 << 28)
