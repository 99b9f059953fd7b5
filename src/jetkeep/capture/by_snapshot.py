"""Read a stream by the server's snapshot: decode while receiving, hand batches to the assembler."""

from __future__ import annotations

import asyncio

from jetkeep.assembly.manifest import Reading
from jetkeep.assembly.segments import Assembler
from jetkeep.assembly.snapshot import take_snapshot
from jetkeep.codecs.snapshot import SnapshotDecoder
from jetkeep.errors import ServerError
from jetkeep.jetstream import JetStream

#: Servers up to 2.14 send one snapshot of a stream at a time, and notice only after seconds that a receiver is gone.
BUSY = "snapshot in progress"
PATIENCE_S = 60.0
_AGAIN_S = 0.5


async def read_by_snapshot(js: JetStream, stream: str, assembler: Assembler) -> Reading:
    """Receive the snapshot of `stream` and hand its live rows to `assembler`.

    The rows are cut at the last sequence of the state that the server gave with the snapshot: what a server up to
    2.14 sends beyond it is not of that moment. Another snapshot of the stream is waited for, PATIENCE_S at most.

    Raises:
        ServerError: the server refused, failed or stalled; what was received is useless.
        BadDataError: what came is not a whole snapshot.
    """
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while True:
        try:
            return await _read(js, stream, assembler)
        except ServerError as busy:
            # Said before the first chunk: the assembler has no row yet.
            if BUSY not in busy.what or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(_AGAIN_S)


async def _read(js: JetStream, stream: str, assembler: Assembler) -> Reading:
    async with js.snapshot(stream) as snapshot:
        decoder = SnapshotDecoder(stream, int(snapshot.state.get("last_seq", 0)))
        taken = await take_snapshot(snapshot, decoder, assembler)
        return Reading(snapshot.config, snapshot.state, list(taken.consumers.values()), taken.dead)
