"""How commands show sets: which parts are there, what is lost and how it is taken again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jetkeep.repository.sets import RestorePoint


def say_lost(point: RestorePoint) -> None:
    """Name the parts that nobody committed, and the command that takes them."""
    from jetkeep.cli.render import say

    for part in point.lost:
        say(f"  LOST {part}: not there (or still under way); again: {_again(point, part)}")


def _again(point: RestorePoint, part: str) -> str:
    """What takes a lost part of a set; how its server is reached is as it was."""
    source, _, shard = part.partition(".")
    whose = f"--source {source}" if shard and len(point.sources) == 1 else "--all-sources"
    share = f" --shard {shard.replace('of', '/')}" if shard else ""
    return f"jetkeep backup {whose}{share} --label {point.label}"


def set_document(point: RestorePoint) -> dict[str, Any]:
    """A set in `--json`."""
    there = {one.set.part: one for one in point.backups if one.set}
    return {
        "label": point.label,
        "status": point.status,
        "started_at": point.started.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "parts": [
            {"part": part, "label": there[part].label, "status": there[part].status}
            if part in there
            else {"part": part, "label": None, "status": "lost"}
            for part in point.parts
        ],
        "lost": list(point.lost),
    }
