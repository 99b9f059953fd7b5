"""Small real repositories for tests: real segments, real files, no server."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import UNSET, UnsetType

from jetkeep.catalog import live_batches
from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.fingerprint import Fingerprint
from jetkeep.codecs.segment import SegmentWriter
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.model import ConsumerRecord, ConsumerState, Message, Pending, Position
from jetkeep.repository.documents import (
    Backup,
    ConsumerDoc,
    Gap,
    Manifest,
    SegmentRef,
    Selection,
    ServerFacts,
    SetPart,
    StreamEntry,
    Tool,
)
from jetkeep.repository.fanout import FanOut
from jetkeep.repository.leases import lease
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.repository.store import Store

CREATED_AT = "2026-11-23T13:15:00.123456789Z"
TIMELINE = "20261123T131500-123456789"
BEGAN = datetime(2024, 1, 10, 13, 15, tzinfo=UTC)
HOUR_NS = 3600 * 10**9
DAY_NS = 24 * HOUR_NS


def orders(first: int, last: int, salt: str = "") -> list[Message]:
    """Messages of a stream, the same for the same arguments."""
    return [
        Message(
            seq,
            1_795_439_700_000_000_000 + seq * 1_000_003,
            f"orders.{seq % 3}".encode(),
            b"NATS/1.0\r\nKind: x\r\n\r\n" if seq % 4 == 0 else b"",
            f"{salt}order {seq}".encode() * (seq % 5),
        )
        for seq in range(first, last + 1)
    ]


@dataclass
class Stream:
    """What a stream holds at a backup: runs of rows, each one segment, and which of these rows are not live."""

    runs: Sequence[Sequence[Message]]
    dead: Iterable[int] = ()
    gaps: Sequence[tuple[Sequence[int], str]] = ()
    timeline: str = TIMELINE

    def live(self) -> list[Message]:
        """The rows that a reader must find."""
        gone = {*self.dead, *(seq for seqs, _ in self.gaps for seq in seqs)}
        return [row for run in self.runs for row in run if row.seq not in gone]


async def take(
    repository: Repository,
    label: str,
    streams: Mapping[str, Stream],
    *,
    started: datetime = BEGAN,
    source: str = "nats",
    failed: Sequence[str] = (),
    tags: Sequence[str] = (),
    include: Sequence[str] = (),
    relabel: bool = False,
    set: SetPart | UnsetType = UNSET,  # noqa: A002 - as the document names it
) -> Backup:
    """Write a backup as capture does: lease, segments, manifests, commit."""
    async with lease(repository.store, "backup", now_ns=time.time_ns) as held:
        await held.wait_for_expire(patience_s=5)
        entries = [await put(repository, source, label, name, one) for name, one in sorted(streams.items())]
        entries += [StreamEntry(name=name, status="failed") for name in failed]
        backup = backup_of(entries, label, started, source, tags, include)
        backup.repository, backup.set = repository.id, set
        return await repository.commit(backup, held, relabel=relabel)


def backup_of(
    entries: list[StreamEntry],
    label: str,
    started: datetime,
    source: str = "nats",
    tags: Sequence[str] = (),
    include: Sequence[str] = (),
) -> Backup:
    """The document of a backup that began then, of no repository yet."""
    return Backup(
        repository="",
        label=label,
        source=source,
        started_at=started.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        finished_at=(started + timedelta(seconds=5)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        status="partial" if any(one.status == "failed" for one in entries) else "complete",
        tool=Tool(name="jetkeep", version="0"),
        server=ServerFacts(),
        host="here",
        tags=list(tags),
        selection=Selection(include=list(include), exclude=[], total=len(entries)),
        streams=entries,
    )


async def put(repository: Repository | FanOut, source: str, label: str, name: str, stream: Stream) -> StreamEntry:
    """Write a stream's segments and manifest."""
    refs = [await put_run(repository, source, name, stream.timeline, run) for run in stream.runs]
    manifest = manifest_of(source, label, name, stream, refs)
    ref = await repository.put_manifest(manifest)
    return StreamEntry(
        name=name,
        status="complete",
        manifest=ref,
        kind="full",
        timeline=stream.timeline,
        messages=manifest.messages,
        first_seq=manifest.first_seq,
        last_seq=manifest.last_seq,
        bytes=manifest.bytes,
        stored_bytes=sum(one.bytes for one in refs),
        consumers=len(manifest.consumers),
        fingerprint=manifest.fingerprint,
        gaps=sum(len(seqs) for seqs, _ in stream.gaps),
    )


async def put_run(
    repository: Repository | FanOut, source: str, name: str, timeline: str, run: Sequence[Message]
) -> SegmentRef:
    """Write one segment."""
    writer = SegmentWriter()
    writer.add(MessageBatch.of(run))
    return await repository.put_segment(source, name, timeline, writer.finish())


def manifest_of(source: str, label: str, name: str, stream: Stream, refs: list[SegmentRef]) -> Manifest:
    """The manifest of a stream whose segments were written."""
    live = MessageBatch.of(stream.live())
    rows = [row.seq for run in stream.runs for row in run]
    first, last = (min(rows), max(rows)) if rows else (0, 0)
    gone = SequenceSet.of(seq for seqs, _ in stream.gaps for seq in seqs)
    if gone:
        first, last = min(first or 1, min(gone.ranges())[0]), max(last, max(gone.ranges())[1])
    span = SequenceSet.from_ranges([(first, last)]) if first else SequenceSet()
    state = ConsumerState(Position(3, 2), Position(1, 1), {2: Pending(3, 5)}, {2: 1})
    times = [row.ts for row in stream.live()]
    return Manifest(
        source=source,
        stream=name,
        timeline=stream.timeline,
        label=label,
        kind="full",
        method="snapshot",
        reason="a test",
        captured_at_ns=1,
        server_version="2.15.1",
        config={"name": name},
        created_at=CREATED_AT,
        state={},
        messages=len(live),
        first_seq=first,
        last_seq=last,
        bytes=live.raw_bytes,
        first_ts_ns=min(times, default=0),
        last_ts_ns=max(times, default=0),
        fingerprint=Fingerprint.of(live).hex() if len(live) else "0" * 32,
        segments=refs,
        deleted=(span - SequenceSet.of(row.seq for row in stream.live()) - gone).encode(),
        gaps=[Gap(set=SequenceSet.of(seqs).encode(), reason=reason) for seqs, reason in stream.gaps],
        consumers=[ConsumerDoc.of(ConsumerRecord("c", {"durable_name": "c"}, state, CREATED_AT))],
        notes=[],
    )


async def read_back(repository: Repository, backup: Backup, name: str) -> list[Message]:
    """The live messages of a stream, through the read path."""
    entry = backup.stream(name)
    assert entry is not None
    manifest = await repository.read_manifest(backup, entry)
    return [row async for batch in live_batches(repository, manifest) for row in batch]


async def new_repository(place: Path | Store) -> Repository:
    """An empty repository."""
    store = LocalStore(place) if isinstance(place, Path) else place
    return await Repository.open_or_create(store, now_ns=time.time_ns)


def files(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def some_streams(chance: random.Random | None = None) -> dict[str, Stream]:
    """Streams of several shapes: two segments, dead rows, a gap, empty."""
    salt = f"{chance.random()} " if chance else ""
    return {
        "ORDERS": Stream([orders(1, 6, salt), orders(7, 12, salt)]),
        "dead rows": Stream([orders(1, 9, salt)], dead=[4, 5]),
        "gap": Stream([orders(1, 4, salt)], gaps=[((5, 6), "the server lost them")]),
        "empty": Stream([]),
    }
