"""Ask repositories, and the sources where that is wanted."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path

from jetkeep import evidence
from jetkeep.errors import BadDataError, JetkeepError
from jetkeep.jetstream import JetStream
from jetkeep.observe.observation import (
    DrillFacts,
    Observation,
    RepositoryFacts,
    SourceFacts,
    StreamFacts,
)
from jetkeep.replicate import lag
from jetkeep.repository import runs
from jetkeep.repository.documents import Backup, moment_of
from jetkeep.repository.layout import timeline_of
from jetkeep.repository.repository import Repository
from jetkeep.repository.sets import RestorePoint, restore_points

#: Streams with figures of their own; the rest is only counted: each is a time series for ever.
MOST_STREAMS = 1000
_WINDOW = timedelta(days=7)
#: A repository or source that does not answer in so many seconds is not up.
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """A repository as it is called, and how it is opened (for listing: no identity is needed)."""

    name: str
    required: bool
    open: Callable[[], Awaitable[Repository]]


@dataclass(frozen=True, slots=True)
class Source:
    """A source that can be asked; `exclude` are globs of streams that are left out on purpose."""

    connect: Callable[[], AbstractAsyncContextManager[JetStream]]
    exclude: Sequence[str] = ()


async def observe(
    places: Sequence[Place], sources: Mapping[str, Source] | None = None, *, now: Callable[[], float] = time.time
) -> Observation:
    """Look at repositories, the first of which the others are compared with; at sources only where they are given.

    What cannot be reached is part of what is found, and no error. Nothing is changed.

    Args:
        places: the repositories.
        sources: how sources are reached, by name.
        now: the clock, seconds since the epoch.
    """
    began, found = time.monotonic(), Observation()
    listed = await asyncio.gather(*(_listed(one) for one in places))
    first: list[Backup] | None = None
    for place, (repository, backups) in zip(places, listed, strict=True):
        facts = RepositoryFacts(place.name, place.required)
        found.repositories.append(facts)
        if repository is None or backups is None:
            continue
        try:
            async with asyncio.timeout(PATIENCE_S):
                await _look(repository, backups, facts, now())
                if first is not None:
                    await _compare(first, repository, facts, now())
        except (JetkeepError, TimeoutError):
            facts.up = False
        if first is None:
            first = backups
    points = restore_points(first or [])
    for name in sorted({backup.source for backup in first or []} | set(sources or {})):
        await _streams(found, name, points, (sources or {}).get(name), now())
    found.seconds = time.monotonic() - began
    return found


async def _listed(place: Place) -> tuple[Repository | None, list[Backup] | None]:
    try:
        async with asyncio.timeout(PATIENCE_S):
            repository = await place.open()
            return repository, (await repository.backups())[0]
    except (JetkeepError, TimeoutError):
        return None, None


async def _look(repository: Repository, backups: Sequence[Backup], facts: RepositoryFacts, now: float) -> None:
    facts.encrypted = repository.sealed
    async for info in repository.store.list(""):
        facts.objects += 1
        facts.size += info.size
    if not repository.store.remote:
        usage = await asyncio.to_thread(shutil.disk_usage, Path(repository.store.url))
        facts.volume = usage.total, usage.free
    for backup in backups:
        _add(facts.sources.setdefault(backup.source, SourceFacts(backup.source)), backup)
    await _runs(repository, facts, now)
    facts.drill = await _drill(repository)
    facts.up = True


def _add(facts: SourceFacts, backup: Backup) -> None:
    """Backups come in the order in which they began: the last complete one counts."""
    facts.backups[backup.status] += 1
    whole = [entry for entry in backup.streams if entry.status == "complete"]
    facts.streams.clear()
    facts.streams.update(complete=len(whole), failed=len(backup.streams) - len(whole))
    if backup.status == "complete":
        finished = moment_of(backup.finished_at)
        facts.last_success = finished.timestamp()
        facts.duration = (finished - backup.started).total_seconds()
        facts.raw_bytes = sum(entry.bytes for entry in whole)
        facts.stored_bytes = sum(entry.stored_bytes for entry in whole)
        facts.messages = sum(entry.messages for entry in whole)


async def _runs(repository: Repository, facts: RepositoryFacts, now: float) -> None:
    since = datetime.fromtimestamp(now, UTC) - _WINDOW
    for ran in await runs.runs(repository):
        if ran.finished >= since:
            facts.counted[ran.kind, ran.outcome] += 1
        if ran.outcome == "success":
            facts.last_success[ran.kind] = ran.finished
        facts.newest[ran.kind] = ran, None
    for kind, (ran, _) in facts.newest.items():
        facts.newest[kind] = ran, await runs.read(repository, ran)


async def _drill(repository: Repository) -> DrillFacts | None:
    try:
        kept = await evidence.newest(repository)
    except BadDataError:
        return None  # `verify` finds it; no figure is better than a wrong one
    if kept is None:
        return None
    body = kept.body
    return DrillFacts(
        finished=moment_of(body["finished_at"]).timestamp(),
        successful=body["verdict"] == "SUCCESSFUL",
        rto_seconds=float(body["rto"]["seconds"]),
        rpo_seconds=float(body["rpo"]["seconds"]),
        next_due=moment_of(body["next_due"]).timestamp(),
    )


async def _compare(first: Sequence[Backup], repository: Repository, facts: RepositoryFacts, now: float) -> None:
    behind = (await lag(first, repository)).behind
    facts.behind = len(behind)
    facts.lag_seconds = max(0.0, now - behind[0].started.timestamp()) if behind else 0.0


async def _streams(
    found: Observation, name: str, points: Sequence[RestorePoint], source: Source | None, now: float
) -> None:
    """The streams of a source as its newest backup, or set, has them, compared with the source itself."""
    newest = next((own for point in reversed(points) if (own := point.of(name))), None)
    there = {one.name for last in (newest.backups if newest else ()) for one in last.streams}
    # A stream that failed in the newest backup is as safe as the last one that has it.
    streams = {
        entry.name: (backup, entry)
        for point in points
        if (own := point.of(name))
        for backup in own.backups
        for entry in backup.streams
        if entry.status == "complete" and entry.name in there
    }
    facts = {
        stream: StreamFacts(
            name,
            backup.server.account,
            stream,
            entry.last_seq,
            entry.messages,
            backup.started.timestamp(),
            entry.gaps,
        )
        for stream, (backup, entry) in sorted(streams.items())
    }
    if source:
        lives = {stream: entry.timeline for stream, (_, entry) in streams.items()}
        try:
            async with asyncio.timeout(PATIENCE_S):
                await _ask(found, name, facts, lives, source, now)
        except (JetkeepError, TimeoutError):
            found.unreachable.append(name)
    room = max(0, MOST_STREAMS - len(found.streams))
    found.streams += list(facts.values())[:room]
    found.left_out += max(0, len(facts) - room)


async def _ask(
    found: Observation,
    name: str,
    facts: dict[str, StreamFacts],
    lives: Mapping[str, str],
    source: Source,
    now: float,
) -> None:
    async with source.connect() as js:
        infos = {info["config"]["name"]: info for info in (await js.stream_list()).infos}
    found.uncovered[name] = sorted(
        stream
        for stream in infos
        if stream not in facts and not any(fnmatchcase(stream, glob) for glob in source.exclude)
    )
    for stream, one in facts.items():
        if (info := infos.get(stream)) is None:
            continue
        state = info["state"]
        same = lives[stream].partition("-r")[0] == timeline_of(str(info["created"]), 1)
        missing = max(0, int(state["last_seq"]) - one.last_sequence) if same else int(state["messages"])
        facts[stream] = replace(one, lag_messages=missing, lag_seconds=max(0.0, now - one.captured) if missing else 0.0)
