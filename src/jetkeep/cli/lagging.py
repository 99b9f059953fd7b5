"""How far the other configured repositories are behind the first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jetkeep.errors import JetkeepError, UsageError

if TYPE_CHECKING:
    from jetkeep.replicate import Lag
    from jetkeep.repository.documents import Backup


@dataclass(frozen=True, slots=True)
class OtherState:
    """One of them: its lag, or why it is not known."""

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
        if not self.lag.behind:
            return "has the newest backup"
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
    for name in list(config.repositories)[1:]:
        behind, error = None, None
        try:
            behind = await lag(backups, await open_repository(name, read=False))
        except UsageError:
            raise
        except JetkeepError as failure:
            error = failure
        found.append(OtherState(name, config.repositories[name].url, config.required(name), behind, error))
    return found
