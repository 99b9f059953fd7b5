"""When something is due. Pure: the clock is an argument.

An occurrence is the moment that the cron expression names; the jitter only delays what is done at it, by the same time in
every replica.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from jetkeep.config.connection import seconds
from jetkeep.config.file import ScheduleTable
from jetkeep.errors import UsageError

KINDS = ("backup", "copy", "drill", "expire", "verify")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A command that runs at times.

    Attributes:
        name: as in the configuration: the kind, or the kind and a name.
        kind: the command.
        cron: five fields; `zone` is where they are meant.
        jitter_s: at most so many seconds later.
        deadline_s: how long it may take, None for ever.
        arguments: of the command.
    """

    name: str
    kind: str
    cron: str
    zone: ZoneInfo
    jitter_s: float = 0.0
    deadline_s: float | None = None
    arguments: tuple[str, ...] = ()

    def after(self, moment: datetime) -> datetime:
        """The next occurrence, in UTC."""
        return next(CronSim(self.cron, moment.astimezone(self.zone))).astimezone(UTC)

    def before(self, moment: datetime) -> datetime:
        """The newest occurrence that is not after this moment, in UTC."""
        later = moment.astimezone(self.zone) + timedelta(seconds=1)
        return next(CronSim(self.cron, later, reverse=True)).astimezone(UTC)

    def due(self, occurrence: datetime) -> datetime:
        """When it is done: up to `jitter_s` later, the same for everybody who asks."""
        drawn = hashlib.sha256(f"{self.name} {occurrence:%Y%m%dT%H%M%SZ}".encode()).digest()
        return occurrence + timedelta(seconds=self.jitter_s * int.from_bytes(drawn[:4]) / 2**32)


def schedules_of(tables: dict[str, ScheduleTable]) -> list[Schedule]:
    """The schedules of a configuration.

    Raises:
        UsageError: a kind, a cron expression, a time zone or a duration is none.
    """
    return [_schedule(name, table) for name, table in tables.items()]


def _schedule(name: str, table: ScheduleTable) -> Schedule:
    kind = name.partition("-")[0]
    if kind not in KINDS:
        raise _bad(name, f"'{kind}' cannot be scheduled", f"the name is {', '.join(KINDS)}, or one of them and -NAME")
    if len(table.cron.split()) != 5:
        raise _bad(name, f"'{table.cron}' has not five fields", "minute hour day month weekday, such as 0 2 * * *")
    try:
        zone = ZoneInfo(table.time_zone)
        next(CronSim(table.cron, datetime.now(zone)))
    except (ZoneInfoNotFoundError, ValueError):
        raise _bad(name, f"there is no time zone '{table.time_zone}'", "such as UTC or Europe/Berlin") from None
    except (CronSimError, StopIteration) as wrong:
        raise _bad(name, f"'{table.cron}' is no cron expression: {wrong}", "such as 0 2 * * *") from None
    return Schedule(
        name,
        kind,
        table.cron,
        zone,
        seconds(table.jitter) if table.jitter else 0.0,
        seconds(table.deadline) if table.deadline else None,
        tuple(table.arguments),
    )


def _bad(name: str, what: str, hint: str) -> UsageError:
    return UsageError(
        f"the schedule [schedules.{name}]: {what}", code="usage.schedule", means="nothing was scheduled", hint=hint
    )
