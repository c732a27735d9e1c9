"""Texts that need not be UTF-8.

Other NATS clients can store keys and headers of any bytes, and a path in the configuration can have any. The daemon
sends such a text as bin. Here it is a str as os.listdir() makes them: bytes that are not UTF-8 are surrogate escapes.
"""
from __future__ import annotations

from typing import Any, Optional, Union


def text_of(text: Union[str, bytes]) -> str:
    """Return a text that the daemon has sent."""
    return text if isinstance(text, str) else text.decode(errors="surrogateescape")


def text_or_none(text: Union[str, bytes, None]) -> Optional[str]:
    """Return a text that the daemon has sent, if it has."""
    return None if text is None else text_of(text)


def texts_of(value: Any) -> Any:
    """Return a tree of lists and dicts with all its texts as str."""
    if isinstance(value, bytes):
        return text_of(value)
    if isinstance(value, list):
        return [texts_of(one) for one in value]
    if isinstance(value, dict):
        return {texts_of(name): texts_of(one) for name, one in value.items()}
    return value


def sent_text(text: Optional[str]) -> Union[str, bytes, None]:
    """Return a text as it is sent to the daemon: the reverse of text_of."""
    if text is None:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="surrogateescape")
    return text


def required_filter(filter: Optional[str]) -> str:
    """Return the filter. It must not be None, which the daemon takes as not given: bucket.purge removes all then."""
    if filter is None:
        raise TypeError("filter: a text such as 'a.>', not None; '>' matches all keys")
    return filter
