"""The form of answers that proto/protocol.md promises, whatever is stored."""
import re

from wire import map_items, option_of, text_bytes

CODES = frozenset((
    "invalid_argument", "bucket_not_found", "already_exists", "conflict", "too_large", "permission_denied",
    "unsupported", "resource_exhausted", "unavailable", "deadline_exceeded", "revision_gone",
    "locked", "not_held", "not_an_integer", "out_of_range", "internal"))
RETRYABLE_CODES = frozenset(("resource_exhausted", "unavailable", "deadline_exceeded"))
MESSAGE_BYTES_MAX = 255
OPERATIONS = ("put", "delete", "purge")


class Wrong(Exception):
    """The daemon breaks a promise."""


def expect(condition, sentence, *about):
    if not condition:
        raise Wrong(sentence.format(*(short(part) for part in about)))


def short(value, limit=300):
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def is_integer(value, least=0):
    return type(value) is int and value >= least


# --- Errors ------------------------------------------------------------------------------------------

CHANGING = frozenset((
    "kv.put", "kv.create", "kv.update", "kv.delete", "kv.purge", "kv.increment", "kv.touch", "bulk.put", "bulk.delete",
    "txn.commit", "bucket.create", "bucket.update", "bucket.delete", "bucket.purge", "bucket.compact", "lock.acquire",
    "daemon.kill_session"))

ERROR_MEMBERS = {
    "code": lambda value: value in CODES,
    "message": lambda value: type(value) is str and 0 < len(value.encode()) <= MESSAGE_BYTES_MAX,
    "retryable": lambda value: type(value) is bool,
    "bucket": lambda value: type(value) is str,
    "key": lambda value: type(value) is str,
    "revision": is_integer,
    "value": lambda value: type(value) is bytes,
    "outcome": lambda value: value in ("none", "unknown"),
}


def check_outcome(method, error):
    expect(method not in CHANGING or "outcome" in error, "an error of {} has no outcome: {}", method, error)


def check_error(error):
    expect(type(error) is dict, "an error is no map: {}", error)
    for member in ("code", "message", "retryable"):
        expect(member in error, "an error has no {}: {}", member, error)
    for member, value in error.items():
        expect(member in ERROR_MEMBERS, "an error has the unknown member {}: {}", member, error)
        expect(ERROR_MEMBERS[member](value), "an error's {} cannot be {}: {}", member, value, error)
    expect(error["code"] != "internal", "an internal error: {}", error)
    expect(error["code"] != "already_exists" or error.get("revision") != 0, "a key that is there has revision 0: {}",
           error)
    expect(error["retryable"] == (error["code"] in RETRYABLE_CODES), "retryable does not fit the code: {}", error)


TEXT_ERROR = re.compile(r"(?s)([a-z_]+): (.*?)(?: \(outcome: (none|unknown)\))?")


def read_text_error(text):
    """Return an error that came as one text, after session.configure, as the map that it stands for."""
    match = TEXT_ERROR.fullmatch(text)
    expect(match, "an error is the text {}", text)
    code, message, outcome = match.groups()
    return {"code": code, "message": message, "retryable": code in RETRYABLE_CODES, **({"outcome": outcome} if outcome else {})}


# --- Results -----------------------------------------------------------------------------------------

ENTRY_MEMBERS = {
    "key": lambda value: type(value) is str and value,
    "value": lambda value: type(value) is bytes,
    "size": is_integer,
    "revision": is_integer,
    "created": lambda value: type(value) is int,
    "operation": lambda value: value in OPERATIONS,
    "headers": lambda value: type(value) is dict and value and all(
        type(name) is str and type(text) is str for name, text in value.items()),
    "ttl": is_integer,
    "expires": is_integer,
    "lease": lambda value: type(value) is str and value,
    "previous": is_integer,
    "previous_value": lambda value: type(value) is bytes,
}


def check_entry(entry, is_meta_only=False):
    expect(type(entry) is dict, "an entry is no map: {}", entry)
    needed = {"key", "size" if is_meta_only else "value", "revision", "created", "operation"}
    optional = {"headers", "ttl", "expires", "lease", "previous", "previous_value"}
    expect(needed <= entry.keys() <= needed | optional, "an entry's members are not those of an entry: {}", entry)
    for member, value in entry.items():
        expect(ENTRY_MEMBERS[member](value), "an entry's {} cannot be {}: {}", member, value, entry)


def _entry_or_nil(result, _params):
    if result is not None:
        check_entry(result)


def _anything(_result, _params):
    pass


def _nil(result, _params):
    expect(result is None, "the result is {} and not nil", result)


def _bool(result, _params):
    expect(type(result) is bool, "the result is {} and not a bool", result)


def _revision(result, _params):
    expect(is_integer(result, 1), "the result is {} and no revision", result)


def _marker(result, params):
    if not (result is None and option_of(params, "if_exists") is True):
        _revision(result, params)


def _entries(result, _params):
    expect(type(result) is list, "the result is {} and no array of entries", result)
    for entry in result:
        check_entry(entry)


def _page(result, params):
    _entries(result, params)
    keys = [entry["key"] for entry in result]
    expect(keys == sorted(set(keys)), "the entries are not in the order of their keys: {}", keys)
    expect(all(entry["operation"] == "put" for entry in result), "a page has a marker: {}", keys)


def _names(result, _params):
    expect(type(result) is list and all(type(name) is str for name in result), "the result is {} and no array of names",
           result)
    expect(result == sorted(set(result)), "the names are not in order, or one is there twice: {}", result)


def _buckets(result, params):
    if option_of(params, "infos") is not True:
        _names(result, params)
        return
    expect(type(result) is list, "the result is {} and no array of infos", result)
    for info in result:
        if type(info) is dict and "error" in info:
            check_error(info["error"])
        else:
            _info(info, params)
    names = [info["bucket"] for info in result]
    expect(names == sorted(set(names)), "the infos are not in the order of their buckets: {}", names)


def asked_keys(argument):
    """Return the keys that a bulk call names."""
    items = map_items(argument)
    return {(text_bytes(key) or b"").decode(errors="replace") for key in
            ([key for key, _ in items] if items is not None else argument)}


def _map_of_entries(result, params):
    expect(type(result) is dict, "the result is {} and no map", result)
    expect(result.keys() == asked_keys(params[1]), "the keys of the answer are not those of the call: {}",
           result.keys() ^ asked_keys(params[1]))
    for key, entry in result.items():
        if entry is not None:
            check_entry(entry)
            expect(entry["key"] == key, "the key {} has the entry {}", key, entry)


def _map_of_outcomes(result, params):
    expect(type(result) is dict, "the result is {} and no map", result)
    expect(result.keys() == asked_keys(params[1]), "the keys of the answer are not those of the call: {}",
           result.keys() ^ asked_keys(params[1]))
    for key, outcome in result.items():
        expect(type(outcome) is dict and len(outcome) == 1, "the result of a key is {}", outcome)
        if "error" in outcome:
            error = outcome["error"]
            check_error(error)
            expect("outcome" in error, "the error of a key has no outcome: {}", error)
            expect(error.get("key") == key, "the key {} has the error {}", key, error)
        else:
            _revision(outcome.get("revision"), params)


def _deletions(result, params):
    if option_of(params, "filter") is not None:
        _count(result, params)
    else:
        _map_of_outcomes(result, params)


def _purge(result, params):
    if option_of(params, "filter") is not None:
        _count(result, params)
    else:
        _nil(result, params)


def _revisions(result, params):
    expect(type(result) is list and len(result) == len(params[2]), "{} operations have the result {}",
           len(params[2]), result)
    for index, revision in enumerate(result):
        expect(is_integer(revision, 1) and revision == result[0] + index, "the revisions have a gap: {}", result)


def _map_with(**members):
    """Return a check that the result is a map with these members of these types. It may have others."""

    def check(result, _params):
        expect(type(result) is dict, "the result is {} and no map", result)
        for member, kind in members.items():
            expect(type(result.get(member)) is kind, "the result's {} is no {}: {}", member, kind.__name__, result)

    return check


_info = _map_with(bucket=str, history=int, ttl=int, max_value_size=int, max_bytes=int, storage=str, replicas=int,
                  compression=bool, limit_marker_ttl=int, marker_ttl=int, values=int, bytes=int, last_revision=int, allows_ttl=bool,
                  allows_atomic=bool)


def _watch_id(result, _params):
    expect(is_integer(result, 1), "the result is {} and no watch id", result)


def _count(result, _params):
    expect(is_integer(result), "the result is {} and no number", result)


def _metrics(result, _params):
    expect(type(result) is str and result.endswith("\n# EOF\n"), "the metrics are {} and do not end with # EOF", result)


def _touched(result, params):
    if result is not None:
        _revision(result, params)


def _increment(result, _params):
    expect(type(result) is list and len(result) == 2 and type(result[0]) is int and is_integer(result[1], 1),
           "the result is {} and no array of a value and a revision", result)


def _held(result, _params):
    expect(type(result) is dict and result.keys() == {"token", "valid_for"}, "a lock's members are {}", result)
    expect(is_integer(result["token"], 1), "the token is {}", result["token"])
    expect(type(result["valid_for"]) is float and 0 <= result["valid_for"] <= 3600, "valid_for is {}", result["valid_for"])


RESULTS = {
    "kv.get": _entry_or_nil,
    "kv.get_json": _anything,
    "kv.put": _revision,
    "kv.create": _revision,
    "kv.update": _revision,
    "kv.delete": _marker,
    "kv.purge": _revision,
    "kv.increment": _increment,
    "kv.touch": _touched,
    "kv.history": _entries,
    "kv.keys": _names,
    "kv.entries": _page,
    "bulk.get": _map_of_entries,
    "bulk.put": _map_of_outcomes,
    "bulk.delete": _deletions,
    "txn.commit": _revisions,
    "bucket.create": _info,
    "bucket.update": _info,
    "bucket.delete": _nil,
    "bucket.purge": _purge,
    "bucket.compact": _count,
    "bucket.info": _info,
    "bucket.list": _buckets,
    "lock.acquire": _held,
    "lock.check": _held,
    "lock.release": _nil,
    "watch.start": _watch_id,
    "watch.stop": _nil,
    "call.cancel": _bool,
    "session.configure": _map_with(errors=str),
    "health.check": _map_with(healthy=bool, nats=dict),
    "daemon.info": _map_with(version=str, pid=int, methods=list, limits=dict, nats=dict),
    "daemon.stats": _map_with(uptime=float, calls_in_flight=int, sessions=dict, methods=dict, errors=dict),
    "daemon.metrics": _metrics,
    "daemon.dump": _map_with(sessions=dict, calls=dict, watches=dict, requests=dict, followed_buckets=dict,
                             group_commits=dict),
    "daemon.config": _map_with(settings=dict, access=list),
    "daemon.sessions": _map_with(own=int, count=int, list=list),
    "daemon.kill_session": _nil,
}


def check_result(method, result, params):
    RESULTS.get(method, _anything)(result, params)
