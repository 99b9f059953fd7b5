"""Back up an account: capture the chosen streams side by side, then commit what succeeded."""

from __future__ import annotations

import asyncio
import platform
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from msgspec import UNSET

from jetkeep import __version__
from jetkeep.assembly.manifest import Place
from jetkeep.capture.files import store_files
from jetkeep.capture.labels import refuse_label_of_set
from jetkeep.capture.selection import select
from jetkeep.capture.sharding import Shard
from jetkeep.capture.stream import Captured, capture_stream
from jetkeep.errors import JetkeepError
from jetkeep.jetstream import JetStream
from jetkeep.model import Emit, JsonDict, Notice, StreamBegan, StreamEnded
from jetkeep.repository.documents import Backup, Failure, Selection, ServerFacts, SetPart, StreamEntry, Tool
from jetkeep.repository.fanout import FanOut
from jetkeep.repository.repository import Repository

#: Streams that are read at once, and the raw bytes that they may have together unless one alone has more:
#: each holds a segment in memory, and one large stream uses both cores anyway.
STREAMS_AT_ONCE = 8
BYTES_AT_ONCE = 48 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """What to back up, and under which names: `shard` takes a share of the streams, `files` are paths and globs of files.

    `part`: what the backup is of a set; None when it is on its own.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    source: str = "nats"
    label: str | None = None
    tags: tuple[str, ...] = ()
    shard: Shard | None = None
    part: SetPart | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What was committed, and into which repositories; `captured` and `failed` by stream name."""

    backup: Backup
    into: FanOut
    captured: dict[str, Captured]
    failed: dict[str, JetkeepError]
    seconds: float


@dataclass(slots=True)
class _Outcome:
    captured: dict[str, Captured] = field(default_factory=dict)
    failed: dict[str, JetkeepError] = field(default_factory=dict)


async def back_up(
    js: JetStream, repository: Repository | FanOut, options: BackupOptions, *, emit: Emit, now_ns: Callable[[], int]
) -> BackupReport:
    """Capture every chosen stream and commit one backup.

    One stream's failure does not stop the others: the backup is then `partial`. On return the backup is
    durable and restorable.

    Raises:
        UsageError: a name or glob matches nothing, or the label is taken.
        ServerError: the streams could not be listed: nothing was committed.
        StoreError: the store failed: nothing was committed.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    started = datetime.fromtimestamp(now_ns() / 1e9, UTC)
    into = repository if isinstance(repository, FanOut) else FanOut.alone(repository)
    async with into.at_work(now_ns, lambda words: emit(Notice(words))):
        listing = await js.stream_list()
        infos = {str(info["config"]["name"]): info for info in listing.infos}
        unreachable = set(listing.offline)
        account = asyncio.ensure_future(js.account_name())
        chosen = select(sorted({*infos, *unreachable}), options.include, options.exclude)
        if options.shard:
            chosen = options.shard.of(chosen)
        label = await into.free_label(options.label, started)
        if options.label and not options.part:
            await refuse_label_of_set(into, options.label)
        previous = await into.newest_entries(options.source)
        outcome = _Outcome({}, {name: listing.why_unreachable(name) for name in chosen if name in unreachable})
        places = {name: Place(into, options.source, label, previous.get(name)) for name in chosen}
        await _capture_all(js, places, infos, outcome, emit, now_ns)
        files = await store_files(into, options.source, label, options.files) if options.files else UNSET
        backup = Backup(
            repository="",  # each repository writes its own
            run=secrets.token_hex(16),
            label=label,
            source=options.source,
            started_at=_rfc3339(started),
            finished_at=_rfc3339(datetime.fromtimestamp(now_ns() / 1e9, UTC)),
            status="partial" if outcome.failed or (files and files.error) else "complete",
            tool=Tool(name="jetkeep", version=__version__),
            server=ServerFacts(**js.server_facts(), account=await account),
            host=platform.node(),
            tags=list(options.tags),
            selection=Selection(include=list(options.include), exclude=list(options.exclude), total=listing.total),
            streams=_entries(outcome),
            set=options.part or UNSET,
            files=files,
        )
        if outcome.failed and not outcome.captured:
            # Nothing to restore from: a commit would only look like a backup.
            raise next(iter(outcome.failed.values()))
        backup = await into.commit(backup, relabel=options.label is None)
    return BackupReport(backup, into, outcome.captured, outcome.failed, loop.time() - began)


async def _capture_all(
    js: JetStream,
    places: dict[str, Place],
    infos: dict[str, JsonDict],
    outcome: _Outcome,
    emit: Emit,
    now_ns: Callable[[], int],
) -> None:
    budget = _Budget(STREAMS_AT_ONCE, BYTES_AT_ONCE)

    async def one(name: str) -> None:
        info = infos[name]
        async with budget.share(int(info["state"]["bytes"])):
            emit(StreamBegan(name, "backup", int(info["state"]["messages"]), int(info["state"]["bytes"])))
            try:
                outcome.captured[name] = await capture_stream(js, places[name], info, emit=emit, now_ns=now_ns)
            except JetkeepError as failure:
                outcome.failed[name] = failure
                emit(StreamEnded(name, "backup", failure.what))
            else:
                emit(StreamEnded(name, "backup"))

    async with asyncio.TaskGroup() as group:
        # Large ones first: the run ends when the largest does.
        for name in sorted(places, key=lambda one: -int(infos[one]["state"]["bytes"]) if one in infos else 0):
            if name in infos:
                group.create_task(one(name))


class _Budget:
    """Admits work while few enough run and their bytes fit together; one alone is always admitted."""

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size
        self._running = self._used = 0
        self._changed = asyncio.Condition()

    def share(self, size: int) -> _Share:
        return _Share(self, min(size, self._size))

    async def enter(self, size: int) -> None:
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._running == 0 or (self._running < self._count and self._used + size <= self._size)
            )
            self._running += 1
            self._used += size

    async def leave(self, size: int) -> None:
        async with self._changed:
            self._running -= 1
            self._used -= size
            self._changed.notify_all()


class _Share:
    def __init__(self, budget: _Budget, size: int) -> None:
        self._budget, self._size = budget, size

    async def __aenter__(self) -> None:
        await self._budget.enter(self._size)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self._budget.leave(self._size))


def _entries(outcome: _Outcome) -> list[StreamEntry]:
    failed = [
        StreamEntry(name=name, status="failed", error=Failure.of(failure)) for name, failure in outcome.failed.items()
    ]
    return sorted([*(one.entry for one in outcome.captured.values()), *failed], key=lambda entry: entry.name)


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
