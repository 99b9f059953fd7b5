"""Which backup is drilled when chance decides."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fnmatch import fnmatchcase

from jetkeep.errors import UsageError
from jetkeep.repository.documents import Backup
from jetkeep.repository.repository import Repository


async def choose_at_random(
    repository: Repository, streams: Sequence[str] = (), source: str | None = None, *, seed: int
) -> Backup:
    """One of the complete backups of this source that have these streams (names or globs), the same for the same seed and backups.

    Raises:
        UsageError: there is none.
    """
    backups, _ = await repository.backups()
    pool = sorted(
        one.label for one in backups if one.status == "complete" and source in (None, one.source) and _has(one, streams)
    )
    if not pool:
        raise UsageError(
            "there is no complete backup to choose from" + (f" that has {', '.join(streams)}" if streams else ""),
            code="usage.no-such-backup",
            means="nothing was done",
            hint="`jetkeep info` lists what is there; --backup LABEL drills a partial one",
        )
    return await repository.read_backup(random.Random(seed).choice(pool))  # noqa: S311 - to be drawn again


def _has(backup: Backup, streams: Sequence[str]) -> bool:
    return all(any(fnmatchcase(entry.name, pattern) for entry in backup.streams) for pattern in streams)
