"""Parts of a set: which is there already, under which label the next one goes, several accounts one after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from jetkeep.capture.labels import free_set_label, place_of
from jetkeep.capture.run import BackupOptions, BackupReport, back_up
from jetkeep.capture.sharding import Shard
from jetkeep.config import ConnectionSettings
from jetkeep.errors import JetkeepError, UsageError
from jetkeep.jetstream import connect
from jetkeep.model import Emit, Notice
from jetkeep.repository.documents import Backup, SetPart
from jetkeep.repository.fanout import FanOut
from jetkeep.repository.names import check_label, check_source
from jetkeep.repository.sets import RestorePoint, part_name, restore_points


@dataclass(frozen=True, slots=True)
class Source:
    """An account: what tells how it is reached, and what of it is backed up (`options.source` is its name)."""

    settings: Callable[[], ConnectionSettings]
    options: BackupOptions


@dataclass(frozen=True, slots=True)
class PartReport:
    """One part of a set: taken now (`report`), complete before (`there`), or failed (`error`)."""

    part: str
    report: BackupReport | None = None
    there: Backup | None = None
    error: JetkeepError | None = None

    @property
    def good(self) -> bool:
        """The part is in the repository, complete."""
        return bool(self.there or (self.report and self.report.backup.status == "complete"))


@dataclass(frozen=True, slots=True)
class SetReport:
    """A run for a set: the parts that it was asked for, and the set as it is now; None when nothing of it is there."""

    label: str
    parts: tuple[PartReport, ...]
    point: RestorePoint | None


async def back_up_set(
    sources: Sequence[Source],
    label: str | None,
    shard: Shard | None,
    into: Callable[[], Awaitable[FanOut]],
    *,
    emit: Emit,
    now_ns: Callable[[], int],
) -> SetReport:
    """Take these accounts' parts of a set, this shard's of each, one after the other; what is there already is not read again.

    One account's failure does not stop the others. On return what was committed is durable.

    Args:
        sources: the accounts.
        label: the set's; None makes one from the time.
        shard: this machine's share; None takes all streams.
        into: opens where the backups go, for each part anew.
        emit: takes events.
        now_ns: the clock, ns since the epoch.

    Raises:
        UsageError: the label is taken, or the set has other parts.
        JetkeepError: no part could be taken: the first one's error.
    """
    names = {one.options.source: part_name(check_source(one.options.source), _words(shard)) for one in sources}
    every = sorted(
        part_name(name, _words(one))
        for name in names
        for one in ([Shard(index, shard.count) for index in range(shard.count)] if shard else [None])
    )
    chosen = label or await free_set_label(await into(), datetime.fromtimestamp(now_ns() / 1e9, UTC))
    for part in every:
        check_label(f"{chosen}.{part}")
    reports = []
    for source in sources:
        own = SetPart(label=chosen, part=names[source.options.source], parts=every)
        options = replace(source.options, shard=shard, part=own)
        reports.append(await _take(replace(source, options=options), own, await into(), emit, now_ns))
    errors = [one.error for one in reports if one.error]
    if len(errors) == len(reports):
        raise errors[0]
    points = restore_points((await (await into()).backups())[0])
    point = next((one for one in points if one.parts and one.label == chosen), None)
    return SetReport(chosen, tuple(reports), point)


async def _take(source: Source, part: SetPart, into: FanOut, emit: Emit, now_ns: Callable[[], int]) -> PartReport:
    try:
        place = await place_of(into, part)
        if isinstance(place, Backup):
            return PartReport(part.part, there=place)
        async with connect(source.settings()) as js:
            report = await back_up(js, into, replace(source.options, label=place), emit=emit, now_ns=now_ns)
    except UsageError as refusal:
        if refusal.code in ("usage.set-parts", "usage.label-taken"):
            raise  # what is true of one part is true of all
        return PartReport(part.part, error=refusal)
    except JetkeepError as failure:
        emit(Notice(f"part {part.part} failed: {failure.what}"))
        return PartReport(part.part, error=failure)
    return PartReport(part.part, report)


def _words(shard: Shard | None) -> str:
    return f"{shard.index}of{shard.count}" if shard else ""
