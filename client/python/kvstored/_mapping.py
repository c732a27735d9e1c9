"""What makes a blocking view of a bucket look like a dict."""
from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Iterator, List, Optional, TypeVar

from .entries import Codec, decoded

if TYPE_CHECKING:
    from .blocking import Client

V = TypeVar("V")


class MappingView(Generic[V]):
    """`view[key]`, `view[key] = value`, `del view[key]`, `key in view`, iteration over the keys, and `len`.

    There is no `clear` and no `popitem`: other clients use the bucket, too.
    """

    client: Client
    name: str
    codec: Codec[V]

    def __getitem__(self, key: str) -> V:
        entry = self.client.get(self.name, key)
        if entry is None:
            raise KeyError(key)
        return decoded(self.codec, entry)

    def __setitem__(self, key: str, value: V) -> None:
        self.client.put(self.name, key, self.codec.encode(value))

    def __delitem__(self, key: str) -> None:
        if self.client.delete(self.name, key, if_exists=True) is None:
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.contains(key)

    def contains(self, key: str) -> bool:
        """Return whether the key exists."""
        raise NotImplementedError

    def keys(self, filter: Optional[str] = None) -> List[str]:  # pylint: disable=redefined-builtin
        """Return the keys, in byte order."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __reversed__(self) -> Iterator[str]:
        return reversed(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def values(self) -> List[V]:
        """Return all values, in the byte order of their keys."""
        return [decoded(self.codec, entry) for entry in self.client.iterate(self.name)]
