"""Which backups a policy keeps, and why. Pure: backups and rules in, decisions with reasons out.

The words are restic's: `keep-last`, `-hourly`, `-daily`, `-weekly`, `-monthly`, `-yearly`, `-within`, `-tag`. For every rule that counts,
the newest backup of each period is kept, for as many periods that have one. Only complete backups fulfil a rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta

from jetkeep.errors import UsageError


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backup as retention sees it; `started` is in UTC."""

    label: str
    source: str
    started: datetime
    complete: bool = True
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
        return (
            ""
            if self.keep
            else ("no rule keeps it" if self.candidate.complete else "partial, and older than a complete one")
        )


_PERIODS: tuple[tuple[str, Callable[[datetime], str]], ...] = (
    ("hourly", lambda at: at.strftime("%Y-%m-%d %H:00")),
    ("daily", lambda at: at.strftime("%Y-%m-%d")),
    ("weekly", lambda at: at.strftime("%G-W%V")),
    ("monthly", lambda at: at.strftime("%Y-%m")),
    ("yearly", lambda at: at.strftime("%Y")),
)


def decide(candidates: Sequence[Candidate], policy: Policy, now: datetime) -> list[Decision]:
    """Decide for every backup, newest first; sources do not compete.

    A pinned backup is always kept. A partial one is kept while it is newer than the newest complete one of its
    source. The newest complete backup of each source is kept whatever the policy says: letting go of the last
    one is not retention.

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
    decisions = [Decision(one) for one in sorted(candidates, key=lambda one: (one.started, one.label), reverse=True)]
    for source in sorted({one.source for one in candidates}):
        _decide_source([one for one in decisions if one.candidate.source == source], policy, now)
    return decisions


def _decide_source(decisions: list[Decision], policy: Policy, now: datetime) -> None:
    whole = [one for one in decisions if one.candidate.complete]
    if whole:
        whole[0].reasons.append("newest complete backup")
    for one in decisions:
        if one.candidate.pinned is not None:
            why = f" ({one.candidate.pinned})" if one.candidate.pinned else ""
            one.reasons.append(f"pinned{why}")
        if not one.candidate.complete and (not whole or one.candidate.started > whole[0].candidate.started):
            one.reasons.append("partial, and newer than the newest complete one")
    for at, one in enumerate(whole[: policy.last], start=1):
        one.reasons.append(f"last {at} of {policy.last}")
    for rule, period_of in _PERIODS:
        _keep_periods(whole, rule, period_of, getattr(policy, rule))
    if policy.within:
        since = subtract(now, policy.within)
        for one in whole:
            if one.candidate.started >= since:
                one.reasons.append(f"within {policy.within}")
    for one in decisions:
        one.reasons.extend(f"tag {tag}" for tag in policy.tags if tag in one.candidate.tags)


def _keep_periods(whole: list[Decision], rule: str, period_of: Callable[[datetime], str], count: int) -> None:
    seen: list[str] = []
    for one in whole:
        if len(seen) == count:
            break
        period = period_of(one.candidate.started.astimezone(UTC))
        if period not in seen:
            seen.append(period)
            one.reasons.append(f"{rule} {len(seen)} of {count} ({period})")


_DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)m)?(?:(\d+)d)?(?:(\d+)h)?")


def subtract(moment: datetime, duration: str) -> datetime:
    """The moment that lies a duration such as `2y5m7d3h` before; months and years are those of the calendar.

    Raises:
        UsageError: the duration cannot be read.
    """
    found = _DURATION.fullmatch(duration)
    if not duration or not found:
        raise UsageError(
            f"'{duration}' is no duration", code="usage.duration", hint="years, months, days, hours: 7d, 12h, 1y6m"
        )
    years, months, days, hours = (int(part or 0) for part in found.groups())
    whole = moment.year * 12 + moment.month - 1 - years * 12 - months
    if whole < 12:
        return datetime.min.replace(tzinfo=UTC)
    year, month = divmod(whole, 12)
    shifted = moment.replace(year=year, month=month + 1, day=1) + timedelta(days=moment.day - 1)
    if shifted.month != month + 1:
        # 31 March less a month is the last day of February, not the first days of March.
        shifted = shifted.replace(day=1) - timedelta(days=1)
    try:
        return shifted - timedelta(days=days, hours=hours)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)
