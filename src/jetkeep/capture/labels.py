"""Labels of sets and their parts: which is free, which is there already."""

from __future__ import annotations

from datetime import datetime

from jetkeep.errors import UsageError
from jetkeep.repository import refusals
from jetkeep.repository.documents import Backup, SetPart
from jetkeep.repository.fanout import FanOut
from jetkeep.repository.sets import RestorePoint, restore_points

_COPIES = 99


async def place_of(into: FanOut, part: SetPart) -> Backup | str:
    """The part, where a complete backup of it is there already; else the label that its next one gets.

    Raises:
        UsageError: the set's label is a backup's, or the set has other parts.
    """
    backups, taken = await into.backups()
    if part.label in taken:
        raise refusals.label_taken(part.label)
    known = next((one for one in restore_points(backups) if one.parts and one.label == part.label), None)
    if known:
        if set(known.parts) != set(part.parts):
            raise _other_parts(known, part)
        there = next((one for one in known.backups if one.set and one.set.part == part.part), None)
        if there and there.status == "complete":
            return there
    base = f"{part.label}.{part.part}"
    labels = [base, *(f"{base}-{copy}" for copy in range(2, _COPIES))]
    return next((one for one in labels if one not in taken), base)


async def free_set_label(into: FanOut, started: datetime) -> str:
    """A label for a set, made from the time, that no backup and no set has."""
    _, taken = await into.backups()
    base = started.strftime("%Y%m%d-%H%M%S")
    label, copy = base, 1
    while any(one == label or one.startswith(f"{label}.") for one in taken):
        copy += 1
        label = f"{base}-{copy}"
    return label


async def refuse_label_of_set(into: FanOut, label: str) -> None:
    """A backup that is on its own does not get the label of a set: nobody could tell which is meant.

    Raises:
        UsageError: there is such a set.
    """
    backups, _ = await into.backups()
    if any(one.set and one.set.label == label for one in backups):
        raise refusals.label_taken(label)


def _other_parts(known: RestorePoint, part: SetPart) -> UsageError:
    return UsageError(
        f"set {part.label} has the parts {', '.join(known.parts)}, not {', '.join(part.parts)}",
        code="usage.set-parts",
        means="that set is untouched; nothing was backed up",
        hint="take its parts with the sources and the number of shards that it began with, or choose another --label",
    )
