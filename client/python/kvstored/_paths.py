"""Where the daemon listens."""
from __future__ import annotations

import os
from typing import Optional, Union

from ._core import DEFAULT_PATH


#: A path as open() takes it.
AnyPath = Union[str, "os.PathLike[str]"]


def socket_path(path: Optional[AnyPath]) -> str:
    """Return the path of the socket: the given one, $KVSTORED_SOCKET, or the standard one."""
    return os.fsdecode(path or "") or os.environ.get("KVSTORED_SOCKET") or DEFAULT_PATH
