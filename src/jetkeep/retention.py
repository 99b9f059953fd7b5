"""Which backups a policy keeps, and why. Pure: backups and rules in, decisions with reasons out.

The words are restic's: `keep-last`, `-hourly`, `-daily`, `-weekly`, `-monthly`, `-yearly`, `-within`, `-tag`. For every rule that counts,
the newest backup of each period is kept, for as many periods that have one. Only complete backups fulfil a rule, and
only those of the same source and selection compete: a backup of one stream does not replace one of all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from itertools import groupby

from jetkeep.errors import UsageError

#: How far the clocks of the machines that write to one repository may differ.
CLOCK_SKEW = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backup as retention sees it; `started` is in UTC, `selection` names what was asked for, empty for all streams."""

    label: str
    source: str
    started: datetime
    complete: bool = True
    selection: str = ""
    tags: frozenset[str] = frozenset()
    pinned: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """How many backups each rule keeps; `within` is a duration such as `7d` or `1y6m`, `tags` keep whatever has one."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: str = ""
    tags: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """No rule is given."""
        return not any(getattr(self, one.name) for one in fields(self))


@dataclass(slots=True)
class Decision:
    """A backup and why it is kept; no reasons means that it is let go, `why_not` says why in words."""

    candidate: Candidate
    reasons: list[str] = field(default_factory=list)

    @property
    def keep(self) -> bool:
        """It stays."""
        return bool(self.reasons)

    @property
    def why_not(self) -> str:
        """Why it goes."""
        if self.keep:
            return ""
        return "no rule keeps it" if self.candidate.complete else "partial, and older than a complete one"


_PERIODS: tuple[tuple[str, Callable[[datetime], str]], ...] = (
    ("hourly", lambda at: at.strftime("%Y-%m-%d %H:00")),
    ("daily", lambda at: at.strftime("%Y-%m-%d")),
    ("weekly", lambda at: at.strftime("%G-W%V")),
    ("monthly", lambda at: at.strftime("%Y-%m")),
    ("yearly", lambda at: at.strftime("%Y")),
)


def decide(candidates: Sequence[Candidate], policy: Policy, now: datetime) -> list[Decision]:
    """Decide for every backup, newest first.

    Whatever the policy says: a pinned backup is kept; so is the newest complete one of each source and selection,
    because to let go of the last one is not retention; so is a partial one that is newer than that; and so is one
    whose time lies in the future, because what is newer than what is then not known.

    Raises:
        UsageError: the policy has no rule, or a duration cannot be read.
    """
    if policy.empty:
        raise UsageError(
            "no rule says what to keep",
            code="usage.no-policy",
            means="nothing was expired",
            hint="give at least one, for instance --keep-daily 7 --keep-weekly 4",
        )
    if policy.within:
        subtract(now, policy.within)
    ordered = sorted(candidates, key=lambda one: (one.started, one.label), reverse=True)
    decisions = [Decision(one) for one in ordered]
    for _, group in groupby(sorted(decisions, key=_group), _group):
        _decide_group(list(group), policy, now)
    return decisions


def _group(decision: Decision) -> tuple[str, str]:
    return decision.candidate.source, decision.candidate.selection


def _decide_group(decisions: list[Decision], policy: Policy, now: datetime) -> None:
    past = [one for one in decisions if one.candidate.started <= now + CLOCK_SKEW]
    whole = [one for one in past if one.candidate.complete]
    newest = whole[0].candidate.started if whole else None
    if whole:
        whole[0].reasons.append("newest complete backup")
    for one in decisions:
        if one.candidate.pinned is not None:
            one.reasons.append("pinned" + (f" ({one.candidate.pinned})" if one.candidate.pinned else ""))
        if one.candidate.started > now + CLOCK_SKEW:
            one.reasons.append("its time lies in the future: a clock was wrong")
        elif not one.candidate.complete and (newest is None or one.candidate.started > newest):
            one.reasons.append("partial, and newer than the newest complete one")
    for at, one in enumerate(whole[: policy.last], start=1):
        one.reasons.append(f"last {at} of {policy.last}")
    for rule, period_of in _PERIODS:
        _keep_periods(whole, rule, period_of, getattr(policy, rule))
    if policy.within and newest is not None:
        # From the newest backup, not from today: when backups stop being taken, none may expire because time goes by.
        since = subtract(min(now, newest), policy.within)
        for one in whole:
            if one.candidate.started >= since:
                one.reasons.append(f"within {policy.within}")
    for one in decisions:
        one.reasons.extend(f"tag {tag}" for tag in policy.tags if tag in one.candidate.tags)


def _keep_periods(whole: list[Decision], rule: str, period_of: Callable[[datetime], str], count: int) -> None:
    kept = 0
    before = ""
    for one in whole:
        period = period_of(one.candidate.started.astimezone(UTC))
        if period == before:
            continue
        if kept == count:
            break
        kept, before = kept + 1, period
        one.reasons.append(f"{rule} {kept} of {count} ({period})")


_DURATION = re.compile(r"(?:(\d{1,6})y)?(?:(\d{1,6})m)?(?:(\d{1,6})d)?(?:(\d{1,6})h)?", re.ASCII)


def subtract(moment: datetime, duration: str) -> datetime:
    """The moment that lies a duration such as `2y5m7d3h` before; months and years are those of the calendar.

    Raises:
        UsageError: the duration cannot be read.
    """
    found = _DURATION.fullmatch(duration)
    if not duration or not found:
        raise UsageError(
            f"'{duration}' is no duration",
            code="usage.duration",
            means="nothing was done",
            hint="years, months, days, hours, in this order: 7d, 12h, 1y6m",
        )
    years, months, days, hours = (int(part or 0) for part in found.groups())
    whole = moment.year * 12 + moment.month - 1 - years * 12 - months
    try:
        year, month = divmod(whole, 12)
        shifted = moment.replace(year=year, month=month + 1, day=1) + timedelta(days=moment.day - 1)
        if shifted.month != month + 1:
            # 31 March less a month is the last day of February, not the first days of March.
            shifted = shifted.replace(day=1) - timedelta(days=1)
        return shifted - timedelta(days=days, hours=hours)
    except (ValueError, OverflowError):  # before the first year
        return datetime.min.replace(tzinfo=UTC)
