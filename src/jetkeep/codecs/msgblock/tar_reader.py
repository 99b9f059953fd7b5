"""The v1 snapshot (a tar of the server's file-store blocks) as events, in bounded memory.

The blocks come first and what was deleted from them is only known at the end: tombstones may sit in later blocks,
and what limits have deleted is told by index.db alone. So rows are given provisionally, and one `DeletedEvent` at
the end names those that are not live.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from jetkeep.codecs.msgblock.block import BlockReader
from jetkeep.codecs.msgblock.consumer_state import decode_consumer_state
from jetkeep.codecs.msgblock.highwayhash import keyed_digest
from jetkeep.codecs.msgblock.index_db import IndexReader
from jetkeep.codecs.msgblock.liveness import Liveness
from jetkeep.codecs.msgblock.tar_stream import Mark, Member, TarReader, bad_tar
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.codecs.snapshot_events import ConsumerEvent, DeletedEvent, SnapshotEvent
from jetkeep.errors import BadDataError
from jetkeep.model import ConsumerRecord, ConsumerState, JsonDict

_MIB = 1024 * 1024
#: A block holds about 8 MB, or one message of up to 64 MiB with its subject.
MAX_BLOCK = 65 * _MIB
_MAX_CONSUMERS = 1_000_000
#: What a server's tar holds, in this order, each with its largest size; index.db is not held, so it may be of any.
#: Windows servers separate the parts of the consumers' names by backslashes.
_MEMBERS = {
    "meta": (re.compile(r"meta\.inf"), 16 * _MIB),
    "sum": (re.compile(r"meta\.sum"), 64),
    "block": (re.compile(r"msgs/([1-9][0-9]{0,9})\.blk"), MAX_BLOCK),
    "index": (re.compile(r"msgs/index\.db"), 1 << 40),
    "consumer": (re.compile(r"obs[/\\]([^/\\]{1,255})[/\\]meta\.inf"), 16 * _MIB),
    "consumer sum": (re.compile(r"obs[/\\]([^/\\]{1,255})[/\\]meta\.sum"), 64),
    "consumer state": (re.compile(r"obs[/\\]([^/\\]{1,255})[/\\]o\.dat"), 64 * _MIB),
    "errors": (re.compile(r"errors\.txt"), 64 * 1024),
}
#: What may come directly before each.
_AFTER = {
    "meta": {""},
    "sum": {"meta"},
    "block": {"sum", "block"},
    "index": {"sum", "block"},
    "consumer": {"sum", "block", "index", "consumer sum", "consumer state"},
    "consumer sum": {"consumer"},
    "consumer state": {"consumer sum"},
    "errors": {"", *_MEMBERS},
}


class TarDecoder:
    """Bytes of a v1 snapshot in, events out: batches of rows, consumers, and at `close` one `DeletedEvent`.

    Rows rise strictly and none is above `last_seq`, the cut: servers send what came in while the snapshot ran, too.
    Holds at most one block and a consumer, and ranges of sequences. `feed` and `close` raise BadDataError at the
    first thing that is wrong; whatever was given before is then not to be used.

    `messages` is how many live messages there are known to be: a tar without index.db that holds exactly so many
    lacks none and holds none too many. Without that, such a tar is refused.
    """

    def __init__(self, stream: str, last_seq: int, *, messages: int | None = None) -> None:
        self._stream = stream
        self._cut = last_seq
        self._messages = messages
        self._tar = TarReader()
        self._kind = ""
        self._name = ""  # the block's number or the consumer's name
        self._data = bytearray()
        self._index: IndexReader | None = None
        self._live = Liveness(stream)
        self._last_row = 0
        self._has_index = False
        self._meta = b""  # what the next sum is of
        self._consumer: ConsumerRecord | None = None
        self._consumers: set[str] = set()
        #: When the stream was created (RFC 3339), once its configuration was read; None when it does not say.
        self.created: str | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[SnapshotEvent]:
        """Take bytes of the tar in, in any pieces."""
        for item in self._tar.feed(data):
            if isinstance(item, Member):
                yield from self._begin(item)
            elif item is Mark.MEMBER_END:
                yield from self._complete()
            elif self._index:
                for block in self._index.feed(item):
                    self._live.add_indexed(block)
            else:
                self._data += item

    def close(self) -> Iterator[SnapshotEvent]:
        """The end of the bytes: the last consumer, and which of the rows given are not live."""
        self._tar.close()
        if self._kind in ("", "meta", "consumer"):
            raise bad_tar(f"ends behind {self._kind or 'nothing'}: what belongs to it is missing")
        yield from self._give_consumer()
        dead = self._live.dead() if self._has_index else self._live.dead_without_index(self._messages)
        if dead is None:
            raise BadDataError(
                f"the snapshot of {self._stream} came without its index.db",
                code="data.snapshot-index",
                means="which messages the limits have deleted is not known; nothing of this snapshot was used",
                hint="take it again: the server leaves the index out when it found its own state inconsistent "
                "and has repaired it since",
                retryable=True,
            )
        yield DeletedEvent(dead)

    def _begin(self, member: Member) -> Iterator[SnapshotEvent]:
        kind, name, most = _recognise(member.name)
        if member.size > most:
            raise bad_tar(f"holds {member.name} of {member.size} bytes")
        if self._kind not in _AFTER[kind]:
            raise bad_tar(f"holds {member.name} behind {self._kind or 'nothing'}")
        if kind in ("consumer sum", "consumer state") and name != self._name:
            raise bad_tar(f"holds {member.name} behind the consumer {self._name}")
        if kind == "block" and int(name) <= self._live.last_block:
            raise bad_tar(f"holds block {name} behind block {self._live.last_block}")
        if kind == "consumer":
            yield from self._give_consumer()
            if name in self._consumers or len(self._consumers) >= _MAX_CONSUMERS:
                raise bad_tar(f"holds the consumer {name} twice, or more than {_MAX_CONSUMERS} of them")
            self._consumers.add(name)
        if kind == "index":
            self._index = IndexReader(self._stream, member.size)
            self._has_index = True
        self._kind, self._name = kind, name

    def _complete(self) -> Iterator[SnapshotEvent]:
        data, self._data = self._data, bytearray()
        if self._kind == "block":
            yield from self._read_block(int(self._name), data)
        elif self._kind == "index" and self._index:
            self._index.close()
            self._index = None
        elif self._kind in ("meta", "consumer"):
            self._meta = bytes(data)
            self._read_meta()
        elif self._kind in ("sum", "consumer sum"):
            key = f"{self._stream}/{self._name}" if self._name else self._stream
            if data.decode("latin-1") != keyed_digest(key, self._meta).hex():
                raise bad_tar(f"has a checksum of {key}'s configuration that is wrong")
        elif self._kind == "consumer state" and self._consumer:
            one = self._consumer
            state = decode_consumer_state(data, one.name)
            self._consumer = ConsumerRecord(one.name, one.config, state, one.created)
        elif self._kind == "errors":
            raise self._server_failed(data.decode("utf-8", "replace"))

    def _read_block(self, number: int, data: bytearray) -> Iterator[SnapshotEvent]:
        block = BlockReader(self._stream, number, data, cut=self._cut, previous=self._last_row)
        ranges: list[tuple[int, int]] = []
        for batch in block:
            ranges += batch.ranges()
            self._last_row = batch.last_seq
            yield batch
        rows = SequenceSet.from_ranges(ranges)
        self._live.add_block(number, rows, block.tombstones, is_cut=block.beyond_cut)

    def _read_meta(self) -> None:
        try:
            config = json.loads(self._meta)
        except (ValueError, RecursionError) as error:
            raise bad_tar(f"has a configuration that is no JSON ({error})") from error
        if not isinstance(config, dict):
            raise bad_tar("has a configuration that is no JSON object")
        if self._kind == "consumer":
            self._consumer = _consumer_record(self._name, config)
        elif config.get("name") != self._stream:
            raise bad_tar(f"is of stream {config.get('name')!r}, not of {self._stream}")
        else:
            self.created = _created(config)

    def _give_consumer(self) -> Iterator[ConsumerEvent]:
        if self._consumer:
            yield ConsumerEvent(self._consumer)
            self._consumer = None

    def _server_failed(self, words: str) -> BadDataError:
        return BadDataError(
            f"the server could not read its own store for the snapshot of {self._stream}: {words[:1000]}",
            code="data.snapshot-errors",
            means="the snapshot holds no messages although the server called it a success; nothing of it was used",
            hint="run `jetkeep backup`, which then reads the stream by message; servers 2.10 fail like this on streams "
            "with compression where messages were deleted",
        )


def _recognise(member: str) -> tuple[str, str, int]:
    """What a member is, of which block or consumer, and how large it may be."""
    for kind, (pattern, most) in _MEMBERS.items():
        if found := pattern.fullmatch(member):
            return kind, found[1] if found.groups() else "", most
    raise bad_tar(f"holds {member[:200]!r}, which no known server writes")


def _consumer_record(name: str, config: JsonDict) -> ConsumerRecord:
    """A consumer's meta.inf is its configuration, and `Created` and `Name` beside it."""
    created = _created(config)
    config.pop("Name", None)
    return ConsumerRecord(name, config, ConsumerState(), created)


def _created(config: JsonDict) -> str | None:
    """Takes `Created` out; Go's zero time means that it is not known."""
    created = config.pop("Created", None)
    return created if isinstance(created, str) and not created.startswith("0001-01-01") else None
