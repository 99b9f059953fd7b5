"""What was looked at, and how bad it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from jetkeep.errors import JetkeepError


class Level(IntEnum):
    """How bad it is; the numbers are those of Nagios plugins."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing that was looked at."""

    name: str
    level: Level
    what: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which age of a source's newest complete backup on to warn, in seconds."""

    warn_age_s: float = 25 * 3600.0
    critical_age_s: float = 48 * 3600.0


@dataclass(slots=True)
class Readiness:
    """All probes, and figures for monitoring.

    `status` is the exit status of the first probe that keeps a backup (or a restore, where that was asked) from being
    made; 0 when nothing does, however old the backups are. `newest` has the time of each source's newest complete backup,
    in seconds since the epoch. `estimate_bytes`: what the next backup will take at most.
    """

    probes: list[Probe] = field(default_factory=list)
    status: int = 0
    streams: int | None = None
    raw_bytes: int | None = None
    backups: int | None = None
    newest: dict[str, float] = field(default_factory=dict)
    free_bytes: int | None = None
    estimate_bytes: int | None = None

    @property
    def level(self) -> Level:
        """The worst of all."""
        return max((one.level for one in self.probes), default=Level.OK)

    def add(self, name: str, level: Level, what: str, hint: str = "") -> None:
        """Note one probe."""
        self.probes.append(Probe(name, level, what, hint))

    def fail(self, name: str, error: JetkeepError) -> None:
        """Note a probe that failed with an error."""
        self.block(name, f"{error.what} [{error.code}]", error.hint, error.exit_status)

    def block(self, name: str, what: str, hint: str, status: int) -> None:
        """Note what keeps a backup from being made."""
        self.add(name, Level.CRITICAL, what, hint)
        self.status = self.status or status
