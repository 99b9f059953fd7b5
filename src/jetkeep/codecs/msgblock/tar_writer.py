"""The v1 snapshot as servers take it for a restore, written from batches.

No index.db is written: servers rebuild it from the blocks, which costs them little more than reading it. What it
would say about gaps is said by where blocks end: a server keeps a set of the sequences that are missing inside a
block (one bit each, 11 s for 50 million), but nothing for those between two blocks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.kernels import _blocks
from jetkeep.codecs.msgblock.block import BlockWriter, tombstone_block
from jetkeep.codecs.msgblock.consumer_state import encode_consumer_state
from jetkeep.codecs.msgblock.highwayhash import keyed_digest
from jetkeep.codecs.msgblock.tar_stream import END, member_header, padding
from jetkeep.model import ConsumerRecord, ConsumerState, JsonDict

#: The size of the servers' own blocks on a stream without a limit of bytes.
BLOCK_BYTES = 8_000_000
#: A gap wider than this ends a block.
WIDEST_GAP = 50_000


class TarEncoder:
    """Call `begin`, then `messages` with batches whose sequences rise, then `end`; what they return is the tar.

    Holds one block. `created` is RFC 3339, or None for the time of the restore. `mtime` is the files' time in
    seconds, which no server looks at.
    """

    def __init__(self, stream: str, config: JsonDict, created: str | None = None, *, mtime: int = 0) -> None:
        self._stream = stream
        self._config = config
        self._created = created
        self._mtime = mtime
        self._block = BlockWriter(stream, BLOCK_BYTES)
        self._last_seq = 0
        self._last_ts = 0

    def begin(self) -> bytes:
        """The stream's configuration and its checksum."""
        meta = _meta(self._config, self._created)
        return self._member("meta.inf", meta) + self._sum("meta.sum", self._stream, meta)

    def messages(self, batch: MessageBatch) -> bytes:
        """The blocks that these rows have filled, often none.

        Raises:
            CannotRestoreError: a message is too large for servers to take it from a block.
        """
        out: list[bytes] = []
        at = 0
        while at < len(batch):
            if len(self._block) and batch.seq[at] - self._last_seq > WIDEST_GAP:
                out.append(self._flush())
            end = _blocks.first_jump(batch.seq, at, len(batch), WIDEST_GAP)
            added = self._block.add(batch, at, end)
            if added > at:
                self._last_seq, self._last_ts = batch.seq[added - 1], batch.ts[added - 1]
            if added < end:
                out.append(self._flush())
            at = added
        return b"".join(out)

    def end(self, last_seq: int, consumers: Iterable[ConsumerRecord] = ()) -> Iterator[bytes]:
        """The last block, what says that the stream's last sequence is `last_seq`, the consumers, the tar's end."""
        if len(self._block):
            yield self._flush()
        if last_seq > self._last_seq:
            # In a block of its own: beside messages it is not heeded.
            tombstone = tombstone_block(self._stream, self._block.number, last_seq, self._last_ts)
            yield self._member(f"msgs/{self._block.number}.blk", tombstone)
        for consumer in consumers:
            yield self._consumer(consumer)
        yield END

    def _flush(self) -> bytes:
        name = f"msgs/{self._block.number}.blk"
        return self._member(name, self._block.take())

    def _consumer(self, consumer: ConsumerRecord) -> bytes:
        meta = _meta({**consumer.config, "Name": consumer.name}, consumer.created)
        folder = f"obs/{consumer.name}"
        out = self._member(f"{folder}/meta.inf", meta)
        out += self._sum(f"{folder}/meta.sum", f"{self._stream}/{consumer.name}", meta)
        if consumer.state != ConsumerState():
            out += self._member(f"{folder}/o.dat", encode_consumer_state(consumer.state))
        return out

    def _sum(self, name: str, key: str, meta: bytes) -> bytes:
        return self._member(name, keyed_digest(key, meta).hex().encode())

    def _member(self, name: str, data: bytes | memoryview) -> bytes:
        return b"".join((member_header(name, len(data), self._mtime), data, padding(len(data))))


def _meta(config: JsonDict, created: str | None) -> bytes:
    whole = {**config, "Created": created} if created else config
    return json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode()
