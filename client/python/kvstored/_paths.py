"""Where the daemon listens."""
from __future__ import annotations

import os
from typing import Optional

from ._core import DEFAULT_PATH


def socket_path(path: Optional[str]) -> str:
    """Return the path of the socket: the given one, $KVSTORED_SOCKET, or the standard one."""
    return path or os.environ.get("KVSTORED_SOCKET") or DEFAULT_PATH
