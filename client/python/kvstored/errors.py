"""The errors of kvstored, one class for each code of the protocol."""
from __future__ import annotations

import re
from typing import Any, Dict, Optional, Type

from ._text import text_or_none


class KvstoredError(Exception):
    """An error that the daemon has returned, or that ended a call.

    code       the error's name in the protocol, such as "conflict"
    message    a sentence for people, with advice
    retryable  the same call may succeed later
    outcome    of a call that changes something: "none" if nothing was written, "unknown" if it may have been written
    bucket     the bucket concerned, or None
    key        the key concerned, or None
    revision   with conflict and already_exists: the current revision of the key, 0 if it does not exist
    value      with locked: the value of the lock, if the daemon knows it
    """

    code = "internal"

    def __init__(self, message: str, *, retryable: bool = False, outcome: Optional[str] = None,
                 bucket: Optional[str] = None, key: Optional[str] = None, revision: Optional[int] = None,
                 value: Optional[bytes] = None) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable
        self.outcome = outcome
        self.bucket = bucket
        self.key = key
        self.revision = revision
        self.value = value

    def __str__(self) -> str:
        where = "/".join(name for name in (self.bucket, self.key) if name)
        outcome = f" (outcome: {self.outcome})" if self.outcome == "unknown" else ""
        return f"{where + ': ' if where else ''}{self.message}{outcome}"


class InvalidArgument(KvstoredError, ValueError):
    """A wrong type, an invalid name, an unknown option."""

    code = "invalid_argument"


class BucketNotFound(KvstoredError):
    """The bucket does not exist."""

    code = "bucket_not_found"


class AlreadyExists(KvstoredError):
    """The key exists, or the bucket exists with other settings."""

    code = "already_exists"


class Conflict(KvstoredError):
    """The key is at another revision."""

    code = "conflict"


class TooLarge(KvstoredError):
    """A size exceeds a limit, which the message names."""

    code = "too_large"


class PermissionDenied(KvstoredError):
    """The access rules deny the call."""

    code = "permission_denied"


class Unsupported(KvstoredError):
    """The NATS server or the bucket lacks a feature."""

    code = "unsupported"


class ResourceExhausted(KvstoredError):
    """A limit of the daemon is reached, or the store is full."""

    code = "resource_exhausted"


class Unavailable(KvstoredError):
    """NATS or the daemon is unavailable."""

    code = "unavailable"


class DeadlineExceeded(KvstoredError):
    """The timeout of the call is over."""

    code = "deadline_exceeded"


class RevisionGone(KvstoredError):
    """A watch cannot continue: the changes since its last entry are no longer available. Begin a new watch."""

    code = "revision_gone"


class Locked(KvstoredError):
    """Another client holds the lock."""

    code = "locked"


class NotHeld(KvstoredError):
    """The session does not hold the lock, or no longer does."""

    code = "not_held"


class NotAnInteger(KvstoredError):
    """increment: the value is not a decimal integer."""

    code = "not_an_integer"


class OutOfRange(KvstoredError):
    """increment: the new number would need more than 64 bits."""

    code = "out_of_range"


class Internal(KvstoredError):
    """A bug in kvstored, which has logged it, or an answer that is not of the protocol."""

    code = "internal"


class LockLost(KvstoredError):
    """The lock of an `async with` or `with` statement is no longer held. __cause__ is the reason, if it is known."""

    code = "lock_lost"


class NotJson(KvstoredError, ValueError):
    """The value of a key was to be parsed as JSON, and is not JSON. __cause__ says where."""

    code = "not_json"


_CLASSES: Dict[str, Type[KvstoredError]] = {
    error.code: error for error in (
        InvalidArgument, BucketNotFound, AlreadyExists, Conflict, TooLarge, PermissionDenied, Unsupported,
        ResourceExhausted, Unavailable, DeadlineExceeded, RevisionGone, Locked, NotHeld, NotAnInteger, OutOfRange,
        Internal)
}


#: Methods of the protocol that messages can advise, and what they are called here.
_METHODS = {
    **{f"bucket.{name}": f"bucket_{name}" for name in (
        "compact", "create", "delete", "info", "list", "purge", "update")},
    **{f"bulk.{name}": f"bulk_{name}" for name in ("delete", "get", "put")},
    **{f"kv.{name}": name for name in (
        "create", "delete", "entries", "get", "get_json", "history", "increment", "keys", "purge", "put", "touch",
        "update")},
    **{f"daemon.{name}": name for name in (
        "config", "dump", "info", "kill_session", "metrics", "sessions", "stats")},
    "health.check": "health", "lock.acquire": "lock", "session.configure": "session_configure",
    "txn.commit": "transaction", "watch.start": "watch",
}

#: One of them as a word of its own, and not within a name or in quotes.
_METHOD = re.compile(
    r'(?<![\w."-])(?:' + "|".join(map(re.escape, sorted(_METHODS, reverse=True))) + r')(?![\w"-]|\.\w)')

#: Errors as text do not say whether they are retryable. These are.
_RETRYABLE = ("resource_exhausted", "unavailable", "deadline_exceeded")


def fresh(error: KvstoredError, **changes: Any) -> KvstoredError:
    """Return a copy of an error that is raised to several callers: each traceback is its own."""
    members = {name: getattr(error, name) for name in (
        "retryable", "outcome", "bucket", "key", "revision", "value")}
    return type(error)(error.message, **{**members, **changes})


def error_of(fields: Any) -> KvstoredError:
    """Return the exception for the error of an answer. An unknown code is Internal, as the protocol says.

    Raises ValueError if it is neither a map with code and message, nor a text as session.configure can choose it.
    """
    if isinstance(fields, str):
        return _error_of_text(fields)
    if not isinstance(fields, dict) or not isinstance(fields.get("code"), str) or \
            not isinstance(fields.get("message"), str):
        raise ValueError(f"an error has no code and message: {fields!r:.100}")
    return _CLASSES.get(fields["code"], Internal)(
        _translate(fields["message"]), retryable=fields.get("retryable") is True, outcome=fields.get("outcome"),
        bucket=text_or_none(fields.get("bucket")), key=text_or_none(fields.get("key")),
        revision=fields.get("revision"), value=fields.get("value"))


def _translate(message: str) -> str:
    """Return a message of the daemon with the names of the methods of this package."""
    return _METHOD.sub(lambda found: _METHODS[found[0]], message)


def error_text(message: Optional[str]) -> Optional[str]:
    """Return the message of an error that is not one of a call; None: there is none."""
    return None if message is None else _translate(message)


def _error_of_text(text: str) -> KvstoredError:
    """The same for `code: message` or `code: message (outcome: unknown)`."""
    parts = re.fullmatch(r"(\w+): (.*?)(?: \(outcome: (\w+)\))?", text, re.DOTALL)
    if parts is None:
        raise ValueError(f"an error has no code: {text!r:.100}")
    code, message, outcome = parts.groups()
    return _CLASSES.get(code, Internal)(_translate(message), retryable=code in _RETRYABLE, outcome=outcome)
