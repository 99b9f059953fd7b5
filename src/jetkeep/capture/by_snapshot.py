"""Read a stream by the server's snapshot: decode while receiving, hand batches to the assembler."""

from __future__ import annotations

from jetkeep.assembly.manifest import Reading
from jetkeep.assembly.segments import Assembler
from jetkeep.assembly.snapshot import take_snapshot
from jetkeep.codecs.snapshot import SnapshotDecoder
from jetkeep.jetstream import JetStream


async def read_by_snapshot(js: JetStream, stream: str, assembler: Assembler) -> Reading:
    """Receive the snapshot of `stream` and hand its live rows to `assembler`.

    The rows are cut at the last sequence of the state that the server gave with the snapshot: what a server up to
    2.14 sends beyond it is not of that moment.

    Raises:
        ServerError: the server refused, failed or stalled; what was received is useless.
        BadDataError: what came is not a whole snapshot.
    """
    async with js.snapshot(stream) as snapshot:
        decoder = SnapshotDecoder(stream, int(snapshot.state.get("last_seq", 0)))
        taken = await take_snapshot(snapshot, decoder, assembler)
        return Reading(snapshot.config, snapshot.state, list(taken.consumers.values()), taken.dead)
