"""What the locks of both clients share."""
from __future__ import annotations

import uuid

#: A wait without a limit, as the protocol has it.
LONGEST_WAIT_S = 1e9

#: After the daemon has dismissed a call that waits, it is made again.
RELEASE_RETRY_S = 0.05


def new_owner() -> str:
    """Return an id that no other client uses: with it a lock survives a lost connection."""
    return uuid.uuid4().hex
