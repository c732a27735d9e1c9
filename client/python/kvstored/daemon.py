"""What the daemon says about itself.

Each class has the members that the protocol names. `details` is the whole map of the protocol: it also has the members
of a later version. A member that is added here later needs a default, because an older daemon does not send it.
"""
from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Mapping, Optional, Type, TypeVar, Union

from ._text import texts_of
from .errors import error_text

R = TypeVar("R", bound="Record")


@dataclasses.dataclass
class Record:
    """A map of the protocol."""

    details: Mapping[str, Any] = dataclasses.field(repr=False)


# --- health ------------------------------------------------------------------------------------------

@dataclasses.dataclass
class NatsStatus(Record):
    """The connection of the daemon to NATS. rtt_us: the time of a round trip, in microseconds."""

    connected: bool
    url: str
    version: str
    rtt_us: int
    reconnects: int


@dataclasses.dataclass
class StoreStatus(Record):
    """The store of the embedded server, in bytes. limit 0: none. Values are refused if disk_free is below
    disk_reserve."""

    used: int
    limit: int
    disk_free: int
    disk_reserve: int


@dataclasses.dataclass
class Health(Record):
    """Whether the daemon, or a bucket, can do its work. error: why it cannot. store: of an embedded server."""

    healthy: bool
    error: Optional[str]
    nats: NatsStatus
    store: Optional[StoreStatus]


# --- info --------------------------------------------------------------------------------------------

@dataclasses.dataclass
class NatsInfo(Record):
    """The NATS server. mode: "embedded" or "external". features: what the server can do."""

    mode: str
    connected: bool
    url: str
    version: str
    cluster: str
    max_payload: int
    features: Mapping[str, Any]


@dataclasses.dataclass
class DaemonInfo(Record):
    """Version and limits of the daemon. methods: the names in the protocol. Times in limits are seconds."""

    version: str
    pid: int
    methods: List[str]
    limits: Mapping[str, Union[int, float]]
    nats: NatsInfo


# --- stats -------------------------------------------------------------------------------------------

@dataclasses.dataclass
class GroupCommitStats(Record):
    """Writes that were sent to NATS together. size: writes in a batch."""

    batches: int
    writes: int
    failed: int
    size_p50: int
    size_p99: int
    size_max: int


@dataclasses.dataclass
class SessionStats(Record):
    """Connections of clients."""

    open: int
    total: int
    refused: int
    ended: int


@dataclasses.dataclass
class IncrementStats(Record):
    """Increments, and the writes into which they were combined."""

    increments: int
    writes: int
    conflicts: int


@dataclasses.dataclass
class MethodStats(Record):
    """Calls of a method, and their latencies in microseconds."""

    calls: int
    errors: int
    p50_us: int
    p99_us: int
    p999_us: int
    max_us: int


@dataclasses.dataclass
class WatchStats(Record):
    """Watches of all sessions."""

    open: int
    total: int
    ended: int
    buckets: int
    entries: int
    resyncs: int
    vanished: int
    behind: int
    backlog_bytes: int
    lag_us: int


@dataclasses.dataclass
class LockStats(Record):
    """Locks and ephemeral keys of all sessions."""

    held: int
    waiting: int
    acquired: int
    lost: int
    leases: int
    renewals: int
    declared_dead: int


@dataclasses.dataclass
class CacheStats(Record):
    """The copies of buckets in memory."""

    buckets: int
    keys: int
    bytes: int
    hits: int
    misses: int
    evicted: int


@dataclasses.dataclass
class Stats(Record):
    """The statistics of the daemon. uptime is in seconds; methods and errors have only those that occurred."""

    uptime: float
    longest_turn_us: int
    calls_in_flight: int
    call_bytes: int
    bytes_in: int
    bytes_out: int
    retries: int
    requests_in_flight: int
    unknown_outcomes: int
    server_restarts: int
    group_commit: GroupCommitStats
    sessions: SessionStats
    increments: IncrementStats
    nats: NatsStatus
    store: Optional[StoreStatus]
    methods: Mapping[str, MethodStats]
    errors: Mapping[str, int]
    watches: WatchStats
    locks: LockStats
    cache: CacheStats


# --- dump, config and sessions -----------------------------------------------------------------------

@dataclasses.dataclass
class DumpList(Record):
    """What the daemon is doing now, of one kind. count: of all items, of which `items` may have only some."""

    items: List[Dict[str, Any]]
    count: int


@dataclasses.dataclass
class Setting(Record):
    """A setting in effect. value is in the form of the file; None if it is not set, has no effect, or is a secret.

    origin         "default", "file", "environment" or "socket unit"
    line           of the file, if the value is from it
    secret         it is a password or a token
    needs_restart  the file has another value, which takes effect when the daemon restarts
    """

    value: Union[str, List[str], None]
    origin: str
    line: Optional[int] = None
    secret: bool = False
    needs_restart: bool = False


@dataclasses.dataclass
class AccessRule(Record):
    """An access rule, and its line in the file."""

    users: List[str]
    groups: List[str]
    buckets: List[str]
    allow: str
    line: int


@dataclasses.dataclass
class Config(Record):
    """The configuration in effect. file: its path; settings: by their names, such as "log.level"."""

    file: Optional[str]
    settings: Mapping[str, Setting]
    access: List[AccessRule]


@dataclasses.dataclass
class Session(Record):
    """A connection of a client."""

    id: int
    pid: int
    uid: int
    program: str
    age_ms: int
    idle_ms: int
    calls: int
    calls_per_second: int
    calls_in_flight: int
    call_bytes: int
    unread_bytes: int
    waiting_bytes: int
    bytes_in: int
    bytes_out: int
    watches: int


@dataclasses.dataclass
class Sessions(Record):
    """The first sessions of an order. count: of all that the caller may see; own: the id of the caller's session."""

    sessions: List[Session]
    count: int
    own: int


# --- From answers ------------------------------------------------------------------------------------

def record_of(kind: Type[R], fields: Dict[str, Any], **members: Any) -> R:
    """Return a record of the class. members: those that are not in the map as they are."""
    names = [field.name for field in dataclasses.fields(kind) if field.name != "details"]
    present = {name: fields[name] for name in names if name in fields}
    return kind(details=fields, **{**present, **members})


def _store_of(fields: Dict[str, Any]) -> Optional[StoreStatus]:
    return record_of(StoreStatus, fields["store"]) if "store" in fields else None


def health_of(fields: Dict[str, Any]) -> Health:
    """Return the answer to health.check."""
    return record_of(Health, fields, error=error_text(fields.get("error")), nats=record_of(NatsStatus, fields["nats"]),
                     store=_store_of(fields))


def info_of_daemon(fields: Dict[str, Any]) -> DaemonInfo:
    """Return the answer to daemon.info."""
    return record_of(DaemonInfo, fields, nats=record_of(NatsInfo, fields["nats"]))


def stats_of(fields: Dict[str, Any]) -> Stats:
    """Return the answer to daemon.stats."""
    return record_of(
        Stats, fields, group_commit=record_of(GroupCommitStats, fields["group_commit"]),
        sessions=record_of(SessionStats, fields["sessions"]),
        increments=record_of(IncrementStats, fields["increments"]),
        nats=record_of(NatsStatus, fields["nats"]), store=_store_of(fields),
        methods={name: record_of(MethodStats, one) for name, one in fields["methods"].items()},
        watches=record_of(WatchStats, fields["watches"]), locks=record_of(LockStats, fields["locks"]),
        cache=record_of(CacheStats, fields["cache"]))


def dump_of(fields: Dict[str, Any]) -> Dict[str, DumpList]:
    """Return the answer to daemon.dump."""
    return {name: record_of(DumpList, one, items=one["list"]) for name, one in fields.items()}


def config_of(fields: Dict[str, Any]) -> Config:
    """Return the answer to daemon.config."""
    fields = texts_of(fields)
    return record_of(
        Config, fields, settings={name: record_of(Setting, one, origin=one["from"])
                                  for name, one in fields["settings"].items()},
        access=[record_of(AccessRule, rule) for rule in fields["access"]])


def sessions_of(fields: Dict[str, Any]) -> Sessions:
    """Return the answer to daemon.sessions."""
    return record_of(Sessions, fields, sessions=[record_of(Session, one) for one in fields["list"]])
