"""The read side: which backups exist, and the live messages of one, proven while they are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase

from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.fingerprint import Fingerprint
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.errors import AccessDeniedError, NoRepositoryError, UsageError
from jetkeep.repository.documents import Backup, Manifest, SegmentRef, StreamEntry
from jetkeep.repository.encoding import damaged
from jetkeep.repository.leases import lease
from jetkeep.repository.repository import Repository

#: Segments that are read ahead of the one in use: a slow store must not stall a server's five seconds.
READ_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Chosen:
    """A stream of a backup, with its manifest."""

    backup: Backup
    entry: StreamEntry
    manifest: Manifest


async def find_backup(
    repository: Repository, label: str | None, streams: Sequence[str] = (), source: str | None = None
) -> Backup:
    """The backup of that label, or the newest one: complete if `streams` is empty, else with all these streams whole.

    Raises:
        NoRepositoryError: there is no backup to choose from.
        UsageError: no backup has what was asked for.
        BadDataError: the backup of that label is damaged.
    """
    if label is not None and label != "latest":
        return await repository.read_backup(label)
    whole, damage = await repository.backups()
    candidates = [one for one in whole if source is None or one.source == source]
    if not candidates:
        if damage:
            raise damage[0].error
        raise NoRepositoryError(
            f"there is no backup in {repository.url}" + (f" of source {source}" if source else ""),
            code="repository.empty",
            hint="run `jetkeep backup`",
        )
    for backup in reversed(candidates):
        if streams and _missing(backup, streams):
            continue
        if streams or backup.status == "complete":
            return backup
    if not streams:
        return candidates[-1]
    raise no_such_stream(candidates[-1], _missing(candidates[-1], streams)[0])


def _missing(backup: Backup, streams: Sequence[str]) -> list[str]:
    names = [entry.name for entry in backup.streams if entry.status == "complete"]
    return [one for one in streams if not any(fnmatchcase(name, one) for name in names)]


def no_such_stream(backup: Backup, pattern: str) -> UsageError:
    """The error for a stream that a backup does not have whole."""
    failed = next((entry for entry in backup.streams if entry.name == pattern and entry.error), None)
    why = f": it failed there ({failed.error.what})" if failed and failed.error else ""
    return UsageError(
        f"backup {backup.label} has no stream '{pattern}'{why}",
        code="usage.no-such-stream",
        means="nothing was done",
        hint="`jetkeep info` shows which backup has which stream; choose one with --backup LABEL",
    )


@asynccontextmanager
async def reading(repository: Repository, backup: Backup, *, now_ns: Callable[[], int]) -> AsyncIterator[None]:
    """Keep `expire` from a backup while it is read; where nothing may be written, without that protection."""
    async with AsyncExitStack() as held:
        with suppress(AccessDeniedError):
            await held.enter_async_context(lease(repository.store, "read", now_ns=now_ns, labels=[backup.label]))
        yield


async def choose_streams(
    repository: Repository, backup: Backup, streams: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[Chosen]:
    """The streams of a backup that match, with their manifests, sorted by name.

    Raises:
        UsageError: a name or glob matches no stream.
        BadDataError: a manifest is damaged.
    """
    if missing := _missing(backup, streams):
        raise no_such_stream(backup, missing[0])
    entries = [
        entry
        for entry in backup.streams
        if entry.status == "complete"
        and (not streams or any(fnmatchcase(entry.name, one) for one in streams))
        and not any(fnmatchcase(entry.name, one) for one in exclude)
    ]
    limit = asyncio.Semaphore(32)

    async def one(entry: StreamEntry) -> Chosen:
        async with limit:
            return Chosen(backup, entry, await repository.read_manifest(backup, entry))

    return list(await asyncio.gather(*(one(entry) for entry in entries)))


def not_live(manifest: Manifest) -> SequenceSet:
    """The sequences that the manifest names as not live: deleted ones and gaps.

    Raises:
        BadDataError: the manifest does not account for every sequence (docs/format.md, *Live messages*).
    """
    dead = SequenceSet.decode(manifest.deleted)
    for gap in manifest.gaps:
        dead |= SequenceSet.decode(gap.set)
    spans = 0 < manifest.first_seq <= manifest.last_seq
    width = manifest.last_seq - manifest.first_seq + 1 if spans else 0
    if manifest.messages + dead.count() != width:
        raise damaged(
            f"the manifest of {manifest.stream} in backup {manifest.label}",
            f"{manifest.messages} messages and {dead.count()} others do not make up {width} sequences",
        )
    return dead


async def live_batches(
    repository: Repository, manifest: Manifest, first: int | None = None, last: int | None = None
) -> AsyncIterator[MessageBatch]:
    """The live messages of a manifest in order, from sequence `first` to `last`, reading segments ahead.

    Whole segments are proven before any of their rows is given. When everything was asked for, the count and
    fingerprint are proven at the end: whoever consumes this must not call its work complete before the iterator ended.

    Raises:
        BadDataError: a segment is damaged or absent, or the rows are not what the manifest says.
    """
    dead = not_live(manifest)
    low = manifest.first_seq if first is None else max(first, manifest.first_seq)
    high = manifest.last_seq if last is None else min(last, manifest.last_seq)
    total = Fingerprint()
    wanted = [ref for ref in manifest.segments if ref.last_seq >= low and ref.first_seq <= high]
    async for ref, data in _read_ahead(repository, wanted):
        for batch in await asyncio.to_thread(_open, ref, data):
            live = _cut(batch, low, high, dead)
            if len(live):
                await asyncio.to_thread(total.update, live)
                yield live
    whole = low == manifest.first_seq and high == manifest.last_seq
    if whole and (total.count != manifest.messages or total.hex() != manifest.fingerprint):
        raise damaged(
            f"{manifest.stream} in backup {manifest.label}",
            f"its segments hold {total.count} live messages with fingerprint {total.hex()}; "
            f"the manifest says {manifest.messages} with {manifest.fingerprint}",
        )


async def _read_ahead(repository: Repository, refs: Sequence[SegmentRef]) -> AsyncIterator[tuple[SegmentRef, bytes]]:
    waiting: list[tuple[SegmentRef, asyncio.Task[bytes]]] = []
    rest = iter(refs)
    try:
        for ref in rest:
            waiting.append((ref, asyncio.create_task(repository.read_segment(ref))))
            if len(waiting) > READ_AHEAD:
                head, task = waiting.pop(0)
                yield head, await task
        while waiting:
            head, task = waiting.pop(0)
            yield head, await task
    finally:
        for _, task in waiting:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


def _open(ref: SegmentRef, data: bytes) -> list[MessageBatch]:
    from jetkeep.codecs.segment import SegmentReader  # noqa: PLC0415 - pyarrow is loaded by who reads segments

    batches = list(SegmentReader(data))
    rows = sum(len(batch) for batch in batches)
    if rows != ref.count or (rows and (batches[0].first_seq, batches[-1].last_seq) != (ref.first_seq, ref.last_seq)):
        raise damaged(ref.key, f"it holds {rows} rows, not the {ref.count} from {ref.first_seq} to {ref.last_seq}")
    return batches


def _cut(batch: MessageBatch, low: int, high: int, dead: SequenceSet) -> MessageBatch:
    if batch.first_seq >= low and batch.last_seq <= high and not dead.intersects(batch.first_seq, batch.last_seq):
        return batch
    keep = [at for at, seq in enumerate(batch.seq) if low <= seq <= high and seq not in dead]
    return batch if len(keep) == len(batch) else batch.select(keep)
