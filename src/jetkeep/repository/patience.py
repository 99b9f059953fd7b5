"""How long one of several repositories may keep the others waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

#: What a repository may be late in all. While it is, the source's snapshot waits in a buffer that lasts longer than this.
PATIENCE_S = 60.0
#: What a call may take without being late, and what its raw bytes may on a slow line (bytes a second): a little faster
#: than the rate at which a server sends on however long it waits (KEEP_ALIVE_S, jetkeep.jetstream.snapshot).
CALL_S = 2.0
SLOW_LINE = 600_000


class Patience:
    """Adds up how late a repository's calls are, one beside the other or not; calls that are faster than fair make up for it."""

    def __init__(self) -> None:
        self._late = 0.0
        self._fair = 0.0
        self._under_way = 0
        self._since = 0.0

    @asynccontextmanager
    async def call(self, raw_bytes: int = 0) -> AsyncIterator[None]:
        """A call that brings so many bytes.

        Raises:
            TimeoutError: the repository has been late for PATIENCE_S; the call was cancelled.
        """
        fair = CALL_S + raw_bytes / SLOW_LINE
        self._note()
        self._under_way += 1
        self._fair += fair
        try:
            async with asyncio.timeout(PATIENCE_S + self._fair - self._late):
                yield
        finally:
            self._note()
            self._under_way -= 1
            self._fair -= fair
            self._late = max(0.0, self._late - fair)

    def _note(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._under_way:
            self._late += now - self._since
        self._since = now
