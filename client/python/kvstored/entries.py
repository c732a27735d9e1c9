"""What calls return, and what they take as values."""
from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import json
from typing import Any, Callable, Dict, Generic, Iterable, List, Mapping, Optional, Tuple, TypeVar, Union

from ._text import text_of, text_or_none
from .errors import KvstoredError, NotJson, error_of

V = TypeVar("V")

#: A value to store. str is stored as UTF-8; numbers, lists and dicts are stored as JSON text.
Value = Union[bytes, str, bytearray, memoryview, int, float, bool, List[Any], Dict[str, Any]]

_VALUE_TYPES = (bytes, str, bytearray, memoryview, int, float, list, tuple, dict)

#: A duration: seconds, or a timedelta. A ttl is a whole number of seconds.
Duration = Union[int, float, datetime.timedelta]


#: The settings of a bucket that are times.
TIME_SETTINGS = ("ttl", "marker_ttl", "limit_marker_ttl")


@dataclasses.dataclass
class Entry:
    """A value of a key, or the marker of a deletion.

    value is bytes; `text` and `json()` decode it. key and headers are str. If another NATS client has stored one that
    is not UTF-8, its bytes are `key.encode(errors="surrogateescape")`, as with the names of os.listdir(). created_us
    and expires_us are microseconds since the Unix epoch.
    """

    key: str
    value: bytes
    revision: int
    created_us: int
    operation: str = "put"
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ttl: Optional[int] = None
    expires_us: Optional[int] = None
    lease: Optional[str] = None
    size: Optional[int] = None
    previous: Optional[int] = None
    previous_value: Optional[bytes] = None
    bucket: Optional[str] = None

    @property
    def text(self) -> str:
        """The value as text, which must be UTF-8."""
        return self.value.decode()

    def json(self) -> Any:
        """Return the value, parsed as JSON. Raises NotJson."""
        try:
            return json.loads(self.value)
        except ValueError as error:
            raise NotJson(f"the value is not JSON: {error}", bucket=self.bucket, key=self.key) from error

    @property
    def is_deleted(self) -> bool:
        """True of the marker that a delete or a purge leaves in watches and histories."""
        return self.operation != "put"

    @property
    def created(self) -> datetime.datetime:
        """When the entry was written, in UTC."""
        return datetime.datetime.fromtimestamp(self.created_us / 1e6, datetime.timezone.utc)

    @property
    def expires(self) -> Optional[datetime.datetime]:
        """When the value expires, in UTC. None: never, as far as the entry says; its bucket may have a ttl."""
        if self.expires_us is None:
            return None
        return datetime.datetime.fromtimestamp(self.expires_us / 1e6, datetime.timezone.utc)


@dataclasses.dataclass
class BucketInfo:
    """The settings of a bucket, and what is in it. settings has all members of the protocol's info."""

    bucket: str
    values: int
    bytes: int
    last_revision: int
    history: int
    ttl: int
    replicas: int
    storage: str
    max_bytes: int
    max_value_size: int
    allows_ttl: bool
    allows_atomic: bool
    settings: Mapping[str, Any]


@dataclasses.dataclass
class Counted:
    """The result of increment: the new number, and its revision."""

    value: int
    revision: int


@dataclasses.dataclass(frozen=True)
class Codec(Generic[V]):
    """How a view of a bucket turns values into bytes and back."""

    encode: Callable[[V], Value]
    decode: Callable[[bytes], V]


BYTES: Codec[bytes] = Codec(lambda value: value, lambda value: value)
TEXT: Codec[str] = Codec(lambda value: value, lambda value: value.decode())
JSON: Codec[Any] = Codec(lambda value: json.dumps(value, separators=(",", ":")), json.loads)


# --- From answers ------------------------------------------------------------------------------------

def decoded(codec: Codec[V], entry: Entry) -> V:
    """Return the value of an entry as the codec makes it."""
    return entry.json() if codec is JSON else codec.decode(entry.value)  # type: ignore[no-any-return]


def entry_of(fields: Dict[str, Any], bucket: str) -> Entry:
    """Return the entry that a map of the protocol describes."""
    key = fields["key"]
    if key.__class__ is not str:
        key = text_of(key)
    if len(fields) == 5 and "value" in fields:  # the usual one
        return Entry(key, fields["value"], fields["revision"], fields["created"], fields["operation"],
                     bucket=bucket)
    headers = {text_of(name): text_of(value) for name, value in (fields.get("headers") or {}).items()}
    return Entry(key, fields.get("value", b""), fields["revision"], fields["created"], fields["operation"], headers,
                 fields.get("ttl"), fields.get("expires"), text_or_none(fields.get("lease")), fields.get("size"),
                 fields.get("previous"), fields.get("previous_value"), bucket)


def entry_or_none(fields: Optional[Dict[str, Any]], bucket: str) -> Optional[Entry]:
    """Return the entry that a map describes; None for nil, which says that the key does not exist."""
    return None if fields is None else entry_of(fields, bucket)


def entries_of(maps: List[Dict[str, Any]], bucket: str) -> List[Entry]:
    """Return the entries that an array of maps describes."""
    return [entry_of(fields, bucket) for fields in maps]


def info_of(fields: Dict[str, Any]) -> BucketInfo:
    """Return the info that a map of the protocol describes."""
    return BucketInfo(fields["bucket"], fields["values"], fields["bytes"], fields["last_revision"], fields["history"],
                      fields["ttl"], fields["replicas"], fields["storage"], fields["max_bytes"],
                      fields["max_value_size"], fields["allows_ttl"], fields["allows_atomic"], fields)


def integer_of(result: Any) -> int:
    """Return an answer that is an integer."""
    if not isinstance(result, int) or isinstance(result, bool):
        raise TypeError(f"not an integer but {result!r:.100}")
    return result


def infos_of(maps: List[Dict[str, Any]]) -> Dict[str, Union[BucketInfo, KvstoredError]]:
    """Return the infos of an answer to bucket.list. A bucket whose info cannot be read has an error instead."""
    return {fields["bucket"]: error_of(fields["error"]) if "error" in fields else info_of(fields) for fields in maps}


def text_answer(result: Any) -> str:
    """Return an answer that is a text."""
    if not isinstance(result, str):
        raise TypeError(f"not a text but {result!r:.100}")
    return result


def mapping_answer(result: Any) -> Dict[str, Any]:
    """Return an answer that is a map."""
    if not isinstance(result, dict):
        raise TypeError(f"not a map but {result!r:.100}")
    return result


def names_of(result: Any) -> List[str]:
    """Return an answer that is an array of names."""
    if not isinstance(result, list):
        raise TypeError(f"not an array but {result!r:.100}")
    return [name if name.__class__ is str else text_of(name) for name in result]


def grant_of(fields: Dict[str, Any]) -> Tuple[int, float]:
    """Return token and valid_for of the answer to lock.acquire and lock.check."""
    return integer_of(fields["token"]), float(fields["valid_for"])


# --- For requests --------------------------------------------------------------------------------------

def key_list(keys: Iterable[str]) -> List[str]:
    """Return the keys that are given for many keys. A str would count as the list of its characters."""
    if isinstance(keys, (str, bytes)):
        raise TypeError(f"keys: a list of keys, not {keys!r:.100}: write [key] for one key")
    return list(keys)


def mapping_of(values: Mapping[str, V]) -> Mapping[str, V]:
    """Return the mapping of keys to values that is given for many keys."""
    if not isinstance(values, collections.abc.Mapping):
        raise TypeError(f"values: a dict of keys and their values, not a {type(values).__name__}")
    return values


def value_map(values: Mapping[str, Value]) -> Dict[str, Value]:
    """Return the values to store that are given for many keys."""
    return {key: value_of(value, f"value of {key!r:.100}") for key, value in mapping_of(values).items()}


def value_of(value: Any, name: str = "value") -> Any:
    """Return a value to store. name: of the argument."""
    if not isinstance(value, _VALUE_TYPES):
        raise TypeError(f"{name}: {value!r:.100} cannot be stored: pass bytes or str, or what JSON can express "
                        "(numbers, lists and dicts)")
    return value


def seconds_of(duration: Optional[Duration], name: str = "timeout") -> Optional[float]:
    """Return a duration in seconds. name: of the argument."""
    if isinstance(duration, datetime.timedelta):
        return duration.total_seconds()
    if duration is not None and not isinstance(duration, (int, float)) or isinstance(duration, bool):
        raise TypeError(f"{name}: seconds or a timedelta, not {duration!r:.100}")
    return duration


def ttl_of(duration: Optional[Duration]) -> Optional[float]:
    """Return a ttl in seconds. The daemon refuses one that is not whole."""
    return seconds_of(duration, "ttl")


def settings_of(settings: Dict[str, Any]) -> Dict[str, Any]:
    """Return the settings of a bucket, with times in seconds."""
    return {name: seconds_of(value, name) if name in TIME_SETTINGS else value for name, value in settings.items()}
