"""Sets: backups that belong together, one of each account or shard. What is complete is derived, never stored. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from jetkeep.errors import UsageError
from jetkeep.repository.documents import Backup
from jetkeep.retention import Candidate


def part_name(source: str, shard: str = "") -> str:
    """A part's name: its source, and for shards which one (`0of4`)."""
    return f"{source}.{shard}" if shard else source


def source_of(part: str) -> str:
    """The source that a part is of; sources' names have no dot."""
    return part.partition(".")[0]


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """What can be restored as one: a backup, or the backups of a set.

    Attributes:
        label: the backup's label, or the set's.
        parts: the names of all parts that the set must have; empty for a backup that is on its own.
        backups: of a set, each part's newest complete backup, or its newest one, in the order of the parts.
        superseded: backups of the set that a later run of the same part replaces.
    """

    label: str
    parts: tuple[str, ...]
    backups: tuple[Backup, ...]
    superseded: tuple[Backup, ...] = ()

    @property
    def lost(self) -> tuple[str, ...]:
        """Parts that nobody committed."""
        there = {one.set.part for one in self.backups if one.set}
        return tuple(part for part in self.parts if part not in there)

    @property
    def status(self) -> Literal["complete", "partial", "incomplete"]:
        """`incomplete`: a part is not there. `partial`: all are there, and streams failed."""
        if self.lost:
            return "incomplete"
        return "partial" if any(one.status != "complete" for one in self.backups) else "complete"

    @property
    def complete(self) -> bool:
        """Every part is there, with every stream."""
        return self.status == "complete"

    @property
    def started(self) -> datetime:
        """When its oldest part began: what was published later may not be in it."""
        return min(one.started for one in self.backups)

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources that it has, or should have."""
        return tuple(sorted({source_of(part) for part in self.parts} or {one.source for one in self.backups}))

    @property
    def members(self) -> tuple[Backup, ...]:
        """Everything that is kept or let go with it."""
        return (*self.backups, *self.superseded)

    def of(self, source: str | None) -> RestorePoint | None:
        """What it has of one source; None when that is nothing."""
        if source is None:
            return self
        parts = tuple(part for part in self.parts if source_of(part) == source)
        backups = tuple(one for one in self.backups if one.source == source)
        return RestorePoint(self.label, parts, backups) if backups else None


def alone(backup: Backup) -> RestorePoint:
    """A backup as it is, whether it is part of a set or not."""
    return RestorePoint(backup.label, (), (backup,))


def restore_points(backups: Iterable[Backup]) -> list[RestorePoint]:
    """Sets, and the backups that belong to none, in the order in which they began."""
    points, sets = [], dict[str, list[Backup]]()
    for backup in backups:
        if not backup.set:
            points.append(alone(backup))
        else:
            sets.setdefault(backup.set.label, []).append(backup)
    points += [_set_of(label, members) for label, members in sets.items()]
    return sorted(points, key=lambda point: (point.started, point.label))


def _set_of(label: str, members: Sequence[Backup]) -> RestorePoint:
    best: dict[str, Backup] = {}
    parts: set[str] = set()
    for one in sorted(members, key=lambda backup: (backup.status == "complete", backup.started, backup.label)):
        assert one.set
        # Where two disagree about which parts there are, none that one of them names may be missed.
        parts |= set(one.set.parts)
        best[one.set.part] = one
    chosen = tuple(best[part] for part in sorted(best))
    kept = {one.label for one in chosen}
    return RestorePoint(label, tuple(sorted(parts)), chosen, tuple(one for one in members if one.label not in kept))


def candidate_of(point: RestorePoint, pins: Mapping[str, str]) -> Candidate:
    """A restore point as retention sees it; `pins` are reasons by label."""
    selections = {
        " ".join([*one.selection.include, *(f"!{other}" for other in one.selection.exclude)]) for one in point.backups
    }
    return Candidate(
        label=point.label,
        source=",".join(point.sources),
        started=point.started,
        complete=point.complete,
        selection=" ".join(sorted(selections)),
        tags=frozenset(tag for one in point.backups for tag in one.tags),
        pinned=next((pins[one.label] for one in point.members if one.label in pins), None),
    )


def incomplete(point: RestorePoint) -> UsageError:
    """The refusal to take a set that lacks parts for a whole."""
    lost = ", ".join(point.lost)
    some = point.backups[0]
    return UsageError(
        f"set {point.label} is not complete: {lost} of {len(point.parts)} parts "
        f"{'is' if len(point.lost) == 1 else 'are'} not there",
        code="usage.set-incomplete",
        means="nothing was done",
        hint=f"run the lost part again with --label {point.label}; or name the streams, a --source that is whole, "
        f"or one part, such as {some.label}",
    )
