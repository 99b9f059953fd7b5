"""The read side: which backups exist, and the live messages of one, proven while they are read."""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import TYPE_CHECKING

from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.fingerprint import Fingerprint
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.errors import BadDataError, NoRepositoryError, UsageError
from jetkeep.repository import layout
from jetkeep.repository.documents import Backup, Manifest, SegmentRef, StreamEntry
from jetkeep.repository.encoding import damaged
from jetkeep.repository.leases import Lease
from jetkeep.repository.repository import Repository
from jetkeep.repository.sets import RestorePoint, alone, incomplete, restore_points
from jetkeep.repository.store import side_by_side

if TYPE_CHECKING:
    from jetkeep.codecs.segment import SegmentBytes

#: Segments that are read ahead of the one in use, and their stored bytes together: a slow store must not stall a server's
#: five seconds. One is always read ahead, and from a disk that is enough.
READ_AHEAD = 4
READ_AHEAD_BYTES = 48 * 1024 * 1024
_GLOB = re.compile(r"[*?\[]")
_BY_TIME = re.compile(r"\d{8}-\d{6}(-\d+)?(\.|$)")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A stream of a backup, with its manifest."""

    backup: Backup
    entry: StreamEntry
    manifest: Manifest


async def find_point(
    repository: Repository,
    label: str | None,
    streams: Sequence[str] = (),
    source: str | None = None,
    *,
    lacking: bool = False,
) -> RestorePoint:
    """The backup or set of that label, or the newest that fits: complete if `streams` is empty, else with all of these whole.

    Args:
        repository: where to look.
        label: a label, a glob of labels, or None or `latest` for any.
        streams: names or globs that it must have.
        source: only backups of this source; of a set only its parts of this source.
        lacking: take a set that lacks parts. Else it is refused, unless the streams are named and there.

    Raises:
        NoRepositoryError: there is no backup to choose from.
        UsageError: no backup has what was asked for, or a part of the set is not there.
        BadDataError: the backup of that label is damaged, or one that may be newer than what would be chosen.
    """
    wanted = "*" if label in (None, "latest") else str(label)
    if not _GLOB.search(wanted):
        point = await _labelled(repository, wanted, source)
        return point if lacking else _whole(point, streams)
    whole, damage = await repository.backups()
    points = [part for point in restore_points(whole) if (part := point.of(source))]
    candidates = [point for point in points if fnmatchcase(point.label, wanted)]
    unreadable = [one for one in damage if fnmatchcase(layout.label_of(one.key) or "", wanted)]
    if not candidates:
        if unreadable:
            raise unreadable[0].error
        raise _none_fits(repository, wanted, source)
    found = next((one for one in reversed(candidates) if _fits(one, streams)), None)
    if found is None and streams:
        if missing := _missing(candidates[-1], streams):
            raise no_such_stream(candidates[-1], missing[0])
        raise incomplete(candidates[-1])
    chosen = found or candidates[-1]
    for one in unreadable:
        if _may_be_newer(layout.label_of(one.key) or "", chosen.label):
            raise BadDataError(
                f"the newest backup that can be read is {chosen.label}, but {one.key}, which cannot, may be newer",
                code=one.error.code,
                means="nothing was done",
                hint=f"use --backup {chosen.label} if that is the one you want; `jetkeep verify` says what is damaged",
            )
    return chosen if lacking else _whole(chosen, streams)


async def members(repository: Repository, label: str) -> list[str]:
    """The labels of the backups that a label stands for: itself, or all of a set.

    Raises:
        UsageError: there is no such backup or set.
    """
    try:
        return [one.label for one in (await find_point(repository, label, lacking=True)).members]
    except BadDataError:
        return [label]


async def find_backup(
    repository: Repository, label: str | None, streams: Sequence[str] = (), source: str | None = None
) -> Backup:
    """Like `find_point`, for who works on one backup: of a set the part that has these streams.

    Raises:
        UsageError: also when several parts have them, or the set has several parts and no stream is named.
    """
    point = await find_point(repository, label, streams, source)
    if len(point.backups) == 1:
        return point.backups[0]
    holding = [one for one in point.backups if streams and not _missing(alone(one), streams)]
    if len(holding) == 1:
        return holding[0]
    if holding:
        raise _in_several(point, streams[0], [one.source for one in holding])
    raise UsageError(
        f"{point.label} is a set of {len(point.parts)} parts",
        code="usage.set",
        means="nothing was done",
        hint=f"give the label of one part, such as {point.backups[0].label}",
    )


async def _labelled(repository: Repository, label: str, source: str | None) -> RestorePoint:
    try:
        return alone(await repository.read_backup(label))
    except UsageError as absent:
        if absent.code != "usage.no-such-backup":
            raise
        whole, _ = await repository.backups()
        point = next((one for one in restore_points(whole) if one.parts and one.label == label), None)
        if point is None:
            raise
        if (one := point.of(source)) is None:
            raise _none_fits(repository, label, source) from None
        return one


def _whole(point: RestorePoint, streams: Sequence[str]) -> RestorePoint:
    if point.lost and not (streams and _fits(point, streams)):
        raise incomplete(point)
    return point


def _fits(point: RestorePoint, streams: Sequence[str]) -> bool:
    if not streams:
        return point.complete
    # What a glob means in a part that is not there is not known, nor whether another source has a stream of that name.
    known = len(point.sources) == 1 and not any(_GLOB.search(one) for one in streams)
    return (known or not point.lost) and not _missing(point, streams)


def _may_be_newer(label: str, than: str) -> bool:
    """Labels tell their age only when both were made from the time."""
    return not (_BY_TIME.match(label) and _BY_TIME.match(than) and label < than)


def _none_fits(repository: Repository, wanted: str, source: str | None) -> NoRepositoryError | UsageError:
    of = f" of source {source}" if source else ""
    if wanted != "*":
        return UsageError(
            f"no backup{of} in {repository.url} has a label like '{wanted}'",
            code="usage.no-such-backup",
            means="nothing was done",
            hint="`jetkeep info` lists the labels",
        )
    return NoRepositoryError(
        f"there is no backup{of} in {repository.url}",
        code="repository.empty",
        means="nothing was done",
        hint="run `jetkeep backup`" + ("; `jetkeep info` lists the sources" if source else ""),
    )


def _missing(point: RestorePoint, streams: Sequence[str]) -> list[str]:
    names = [entry.name for backup in point.backups for entry in backup.streams if entry.status == "complete"]
    return [one for one in streams if not any(fnmatchcase(name, one) for name in names)]


def having(backup: Backup, streams: Sequence[str]) -> list[str]:
    """Those of the names and globs that match a whole stream of the backup."""
    missing = _missing(alone(backup), streams)
    return [one for one in streams if one not in missing]


def no_such_stream(point: RestorePoint, pattern: str) -> UsageError:
    """The error for a stream that a backup or set does not have whole."""
    entries = [entry for backup in point.backups for entry in backup.streams]
    failed = next((entry for entry in entries if entry.name == pattern and entry.error), None)
    why = f": it failed there ({failed.error.what})" if failed and failed.error else ""
    if point.lost:
        why += f": the set lacks {', '.join(point.lost)}"
    return UsageError(
        f"backup {point.label} has no stream '{pattern}'{why}",
        code="usage.no-such-stream",
        means="nothing was done",
        hint="`jetkeep info` shows which backup has which stream; choose one with --backup LABEL",
    )


@asynccontextmanager
async def reading(repository: Repository, *backups: Backup, now_ns: Callable[[], int]) -> AsyncIterator[Lease | None]:
    """Keep `expire` from backups while they are read; where nothing may be written, None: without that protection."""
    labels = [one.label for one in backups]
    async with repository.protecting(backups, now_ns=now_ns) as held:
        await side_by_side(repository.read_backup, labels)  # gone, if an expire was quicker than the lease
        yield held


async def choose_streams(
    repository: Repository, point: Backup | RestorePoint, streams: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[Chosen]:
    """The streams of a backup or set that match, with their manifests, sorted by name.

    Raises:
        UsageError: a name or glob matches no stream, or two parts of the set have a stream of one name.
        BadDataError: a manifest is damaged.
    """
    point = alone(point) if isinstance(point, Backup) else point
    if missing := _missing(point, streams):
        raise no_such_stream(point, missing[0])
    pairs = [
        (backup, entry)
        for backup in point.backups
        for entry in backup.streams
        if entry.status == "complete"
        and (not streams or any(fnmatchcase(entry.name, one) for one in streams))
        and not any(fnmatchcase(entry.name, one) for one in exclude)
    ]
    pairs.sort(key=lambda pair: pair[1].name)
    for (one, entry), (other, following) in pairwise(pairs):
        if entry.name == following.name:
            raise _in_several(point, entry.name, [one.source, other.source])

    async def read(pair: tuple[Backup, StreamEntry]) -> Chosen:
        return Chosen(*pair, await repository.read_manifest(*pair))

    return await side_by_side(read, pairs)


def _in_several(point: RestorePoint, stream: str, sources: Sequence[str]) -> UsageError:
    return UsageError(
        f"set {point.label} has a stream '{stream}' of several sources: {', '.join(sources)}",
        code="usage.stream-of-several-sources",
        means="nothing was done",
        hint=f"choose one: --source {sources[0]}",
    )


def not_live(manifest: Manifest) -> SequenceSet:
    """The sequences that the manifest names as not live: deleted ones and gaps.

    Raises:
        BadDataError: the manifest does not account for every sequence once (docs/format.md, *Live messages*).
    """
    first, last = manifest.first_seq, manifest.last_seq
    if not (first == last == 0 or 1 <= first <= last + 1):
        raise _unaccounted(manifest, f"there is no stream from sequence {first} to {last}")
    sets = [SequenceSet.decode(one) for one in (manifest.deleted, *(gap.set for gap in manifest.gaps))]
    dead = SequenceSet()
    for one in sets:
        dead |= one
    width = last - first + 1 if first else 0
    named = sum(one.count() for one in sets)
    if manifest.messages + named != width:
        raise _unaccounted(
            manifest, f"{manifest.messages} messages and {named} others do not make up {width} sequences"
        )
    if dead.count() != named or dead.count_within(first, last) != named:
        raise _unaccounted(manifest, "a sequence is deleted or in a gap twice, or outside of the stream")
    return dead


def _unaccounted(manifest: Manifest, why: str) -> BadDataError:
    return damaged(f"the manifest of {manifest.stream} in backup {manifest.label}", why, "coverage")


async def live_batches(
    repository: Repository, manifest: Manifest, first: int | None = None, last: int | None = None
) -> AsyncIterator[MessageBatch]:
    """The live messages of a manifest in order, from sequence `first` to `last`, reading segments ahead.

    A segment's digest is compared before any of its rows is given. When everything was asked for, the count and
    fingerprint are proven at the end: whoever consumes this must not call its work complete before the iterator ended.
    In memory: three segments as they are stored, and two batches.

    Raises:
        BadDataError: a segment is damaged or absent, or the rows are not what the manifest says.
    """
    dead = not_live(manifest)
    low = manifest.first_seq if first is None else max(first, manifest.first_seq)
    high = manifest.last_seq if last is None else min(last, manifest.last_seq)
    total = Fingerprint()
    wanted = [ref for ref in manifest.segments if ref.last_seq >= low and ref.first_seq <= high]
    async with aclosing(_read_ahead(repository, wanted)) as segments:
        async for ref, data in segments:
            rows = _live_rows(ref, data, low, high, dead, total)
            # While the consumer works on one batch, the next is unpacked.
            following = asyncio.create_task(asyncio.to_thread(next, rows, None))
            try:
                while (batch := await following) is not None:
                    following = asyncio.create_task(asyncio.to_thread(next, rows, None))
                    yield batch
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
    whole = low == manifest.first_seq and high == manifest.last_seq
    if whole and (total.count != manifest.messages or total.hex() != manifest.fingerprint):
        raise damaged(
            f"{manifest.stream} in backup {manifest.label}",
            f"its segments hold {total.count} live messages with fingerprint {total.hex()}; "
            f"the manifest says {manifest.messages} with {manifest.fingerprint}",
            "count" if total.count != manifest.messages else "fingerprint",
        )


async def _read_ahead(
    repository: Repository, refs: Sequence[SegmentRef]
) -> AsyncGenerator[tuple[SegmentRef, bytes], None]:
    waiting: deque[tuple[SegmentRef, asyncio.Task[bytes]]] = deque()
    rest = deque(refs)
    room, most = (READ_AHEAD_BYTES, READ_AHEAD) if repository.store.remote else (0, 1)
    try:
        while rest or waiting:
            # The first of these is the one that is used next; what follows it is ahead.
            while rest and (
                len(waiting) < 2
                or (len(waiting) <= most and sum(ref.bytes for ref, _ in waiting) + rest[0].bytes <= room)
            ):
                ref = rest.popleft()
                waiting.append((ref, asyncio.create_task(repository.read_segment(ref))))
            head, task = waiting.popleft()
            yield head, await task
    finally:
        for _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)


def _live_rows(
    ref: SegmentRef, data: bytes, low: int, high: int, dead: SequenceSet, total: Fingerprint
) -> Iterator[MessageBatch]:
    """The live rows of a segment between two sequences, added to `total`. Every step is work for a thread."""
    from jetkeep.codecs.segment import SegmentReader  # noqa: PLC0415 - pyarrow is loaded by who reads segments

    reader = SegmentReader(data)
    if reader.count != ref.count:
        raise damaged(ref.key, f"it holds {reader.count} rows, not the {ref.count} that the manifest says", "count")
    # Where what is dead and the rows fill the segment's range together, no row is dead.
    some_dead = ref.count + dead.count_within(ref.first_seq, ref.last_seq) > ref.last_seq - ref.first_seq + 1
    whole = low <= ref.first_seq and ref.last_seq <= high
    for batch in reader if whole else reader.rows(low, high):
        if not ref.first_seq <= batch.first_seq <= batch.last_seq <= ref.last_seq:
            raise damaged(ref.key, f"it holds rows that are not from {ref.first_seq} to {ref.last_seq}", "order")
        live = live_rows(batch, low, high, dead) if some_dead else batch
        if live.count:
            total.update(live)
            yield live


def proven_segment(ref: SegmentRef, data: bytes) -> SegmentBytes:
    """A segment whose digest was compared, once its rows are what its reference says. Work for a thread.

    Raises:
        BadDataError: they are not.
    """
    from jetkeep.codecs.segment import SegmentBytes, SegmentReader  # noqa: PLC0415 - as above

    total = Fingerprint()
    for batch in SegmentReader(data):
        if not ref.first_seq <= batch.first_seq <= batch.last_seq <= ref.last_seq:
            raise damaged(ref.key, f"it holds rows that are not from {ref.first_seq} to {ref.last_seq}", "order")
        total.update(batch)
    if total.count != ref.count or total.hex() != ref.fingerprint:
        raise damaged(ref.key, "its rows are not those that the manifest says", "fingerprint")
    return SegmentBytes(
        memoryview(data),
        ref.first_seq,
        ref.last_seq,
        ref.count,
        ref.first_ts_ns,
        ref.last_ts_ns,
        ref.raw_bytes,
        ref.fingerprint,
    )


def live_rows(batch: MessageBatch, first: int, last: int, dead: SequenceSet) -> MessageBatch:
    """The rows of a batch from sequence `first` to `last` that are not in the set."""
    keep: list[int] = []
    at, end = bisect_left(batch.seq, first), bisect_right(batch.seq, last)
    for low, high in dead.within(max(first, batch.first_seq), min(last, batch.last_seq)):
        begin = bisect_left(batch.seq, low, at, end)
        keep.extend(range(at, begin))
        at = bisect_right(batch.seq, high, begin, end)
    keep.extend(range(at, end))
    return batch if len(keep) == batch.count else batch.select(keep)
