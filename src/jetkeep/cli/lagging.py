"""How far the other configured repositories are behind the first, or ahead of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jetkeep.errors import CannotRestoreError, JetkeepError, NoRepositoryError, UsageError

if TYPE_CHECKING:
    from jetkeep.replicate import Lag
    from jetkeep.repository.documents import Backup
    from jetkeep.repository.repository import Repository
    from jetkeep.repository.sets import RestorePoint

#: For the question whether another repository has a newer backup: a restore waits for no store that is down.
_ASKING_S = 10.0


@dataclass(frozen=True, slots=True)
class OtherState:
    """One of them, against the `first`: its lag, or why it is not known."""

    first: str
    name: str
    url: str
    required: bool
    lag: Lag | None
    error: JetkeepError | None

    @property
    def seconds(self) -> float | None:
        """How old the oldest backup is that is not there, in seconds; 0 when none is missing, None when it is not known."""
        if self.lag is None:
            return None
        return time.time() - self.lag.behind[0].started.timestamp() if self.lag.behind else 0.0

    def words(self) -> str:
        """The state in words."""
        from jetkeep.cli.render import age

        if self.lag is None:
            assert self.error
            return f"not known: {self.error.what}  [{self.error.code}]"
        if self.lag.ahead:
            count = len(self.lag.ahead)
            return f"AHEAD: has {count} newer backup{'' if count == 1 else 's'} that {self.first} lacks: {self.lag.ahead[-1].label}"
        if not self.lag.behind:
            return "has the newest backup" if self.lag.newest else "has no backup"
        count = len(self.lag.behind)
        newest = f"the newest it has is {self.lag.newest.label}" if self.lag.newest else "it has none of them"
        return f"{count} backup{'' if count == 1 else 's'} behind, for {age(self.seconds or 0)}; {newest}"

    def to_dict(self) -> dict[str, Any]:
        """The state for `--json`."""
        seconds = self.seconds
        return {
            "name": self.name,
            "url": self.url,
            "required": self.required,
            "behind": [one.label for one in self.lag.behind] if self.lag else None,
            "ahead": [one.label for one in self.lag.ahead] if self.lag else None,
            "newest": self.lag.newest.label if self.lag and self.lag.newest else None,
            "lag_seconds": None if seconds is None else round(seconds, 3),
            **({"error": self.error.to_dict()} if self.error else {}),
        }


async def other_states(backups: Sequence[Backup]) -> list[OtherState]:
    """Each configured repository after the first, compared with the first one's backups."""
    from jetkeep.cli.settings import configuration, open_repository
    from jetkeep.replicate import lag

    config = configuration()
    found = []
    first, *names = config.repositories or [""]
    for name in names:
        behind, error = None, None
        try:
            behind = await lag(backups, await open_repository(name, read=False))
        except UsageError:
            raise
        except JetkeepError as failure:
            error = failure
        found.append(OtherState(first, name, config.repositories[name].url, config.required(name), behind, error))
    return found


async def point_elsewhere(absent: NoRepositoryError) -> NoRepositoryError:
    """The first configured repository is not there: the error with what the others have."""
    others = [one for one in await other_states([]) if one.lag and one.lag.ahead]
    if not others:
        return absent
    one = others[0]
    assert one.lag
    return NoRepositoryError(
        absent.what,
        code=absent.code,
        means=f"{one.name} has {len(one.lag.ahead)} backups, the newest is {one.lag.ahead[-1].label}: `restore` reads from there",
        hint=f"`jetkeep info --repo {one.name}`; `jetkeep copy --from {one.name} --to {one.first}` fills it again",
    )


async def refuse_older(
    repository: Repository, streams: Sequence[str], source: str | None, tell: Callable[[str], None]
) -> None:
    """Restore from the first repository only when no other has what is wanted newer: it may have been full, or away.

    Raises:
        CannotRestoreError: another one has, and which.
    """
    from jetkeep.cli.settings import configuration, open_repository

    mine = await _newest(repository, streams, source)
    first, *names = configuration().repositories
    for name in names:
        try:
            async with asyncio.timeout(_ASKING_S):
                theirs = await _newest(await open_repository(name, read=False), streams, source)
        except UsageError:
            raise
        except (JetkeepError, TimeoutError) as failure:
            why = failure.what if isinstance(failure, JetkeepError) else f"no answer within {_ASKING_S:g} s"
            tell(f"whether {name} has a newer backup is not known: {why}")
            continue
        if theirs and (mine is None or (theirs.started > mine.started and set(theirs.sources) & set(mine.sources))):
            instead = (
                f"the newest of {first} is {mine.label} of {mine.started:%Y-%m-%d %H:%M}"
                if mine
                else f"{first} has none"
            )
            raise CannotRestoreError(
                f"{name} has a newer backup than {first}: {theirs.label} of {theirs.started:%Y-%m-%d %H:%M}",
                code="restore.newer-elsewhere",
                means=f"nothing was restored; {instead}",
                hint=f"--repo {name} takes the newer one" + (f", --backup {mine.label} the older one" if mine else ""),
            )


async def _newest(repository: Repository, streams: Sequence[str], source: str | None) -> RestorePoint | None:
    """What a restore would take, None where nothing fits."""
    from jetkeep.catalog import find_point

    try:
        return await find_point(repository, None, streams, source)
    except (UsageError, NoRepositoryError):
        return None
