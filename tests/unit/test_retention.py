"""Which backups a policy keeps and the reasons that it gives, by tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from jetkeep.errors import UsageError
from jetkeep.retention import CLOCK_SKEW, Candidate, Policy, decide, subtract

NOW = datetime(2026, 11, 23, 13, 15, tzinfo=UTC)  # a Monday


def at(text: str, **more: Any) -> Candidate:
    """A backup whose label is its time, `2026-11-23 13:15` or `2026-11-23`."""
    moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return Candidate(**{"label": text, "source": "prod", "started": moment, **more})


def outcome(candidates: list[Candidate], now: datetime = NOW, **policy: Any) -> dict[str, list[str]]:
    """Reasons by label, newest first; what goes has its `why_not` in a tuple's place."""
    decisions = decide(candidates, Policy(**policy), now)
    assert all(one.keep == bool(one.reasons) == (one.why_not == "") for one in decisions)
    return {one.candidate.label: one.reasons or [f"- {one.why_not}"] for one in decisions}


def kept(candidates: list[Candidate], **policy: Any) -> list[str]:
    return [label for label, why in outcome(candidates, **policy).items() if not why[0].startswith("- ")]


def daily(first: str, count: int) -> list[Candidate]:
    start = datetime.fromisoformat(first)
    return [at((start + timedelta(days=day)).strftime("%Y-%m-%d %H:%M")) for day in range(count)]


def test_the_reasons_of_a_usual_policy_word_by_word() -> None:
    backups = [
        at("2026-11-23 12:00"),
        at("2026-11-23 02:00", tags=frozenset({"release"})),
        at("2026-11-22 02:00"),
        at("2026-11-21 02:00", complete=False),
        at("2026-11-20 02:00"),
        at("2026-10-31 02:00"),
        at("2025-12-31 02:00", pinned="audit"),
        at("2025-06-01 02:00", pinned=""),
    ]
    assert outcome(backups, last=2, daily=2, weekly=2, monthly=2, yearly=5, within="1d", tags=("release",)) == {
        "2026-11-23 12:00": [
            "newest complete backup",
            "last 1 of 2",
            "daily 1 of 2 (2026-11-23)",
            "weekly 1 of 2 (2026-W48)",
            "monthly 1 of 2 (2026-11)",
            "yearly 1 of 5 (2026)",
            "within 1d",
        ],
        "2026-11-23 02:00": ["last 2 of 2", "within 1d", "tag release"],
        "2026-11-22 02:00": ["daily 2 of 2 (2026-11-22)", "weekly 2 of 2 (2026-W47)"],
        "2026-11-21 02:00": ["- partial, and older than a complete one"],
        "2026-11-20 02:00": ["- no rule keeps it"],
        "2026-10-31 02:00": ["monthly 2 of 2 (2026-10)"],
        "2025-12-31 02:00": ["pinned (audit)", "yearly 2 of 5 (2025)"],
        "2025-06-01 02:00": ["pinned"],
    }


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"last": 1}, ["2026-11-23 11:10"]),
        ({"last": 3}, ["2026-11-23 11:10", "2026-11-23 11:05", "2026-11-23 10:59"]),
        ({"last": 99}, None),
        ({"hourly": 1}, ["2026-11-23 11:10"]),
        ({"hourly": 3}, ["2026-11-23 11:10", "2026-11-23 10:59", "2026-11-22 23:59"]),
        ({"daily": 2}, ["2026-11-23 11:10", "2026-11-22 23:59"]),
        # Periods without a backup do not count.
        ({"daily": 3}, ["2026-11-23 11:10", "2026-11-22 23:59", "2026-11-16 00:00"]),
        ({"weekly": 2}, ["2026-11-23 11:10", "2026-11-22 23:59"]),
        ({"weekly": 3}, ["2026-11-23 11:10", "2026-11-22 23:59", "2026-11-15 23:59"]),
        ({"monthly": 2}, ["2026-11-23 11:10", "2026-10-31 23:59"]),
        ({"yearly": 9}, ["2026-11-23 11:10", "2025-12-31 23:59"]),
        ({"within": "1h"}, ["2026-11-23 11:10", "2026-11-23 11:05", "2026-11-23 10:59", "2026-11-23 10:10"]),
        ({"within": "24h"}, ["2026-11-23 11:10", "2026-11-23 11:05", "2026-11-23 10:59", "2026-11-23 10:10", "2026-11-22 23:59"]),
        ({"daily": 1, "yearly": 2}, ["2026-11-23 11:10", "2025-12-31 23:59"]),
        ({"tags": ("none has it",)}, ["2026-11-23 11:10"]),
    ],
    ids=str,
)  # fmt: skip
def test_each_rule(policy: dict[str, Any], expected: list[str] | None) -> None:
    times = [
        "2026-11-23 11:10", "2026-11-23 11:05", "2026-11-23 10:59", "2026-11-23 10:10", "2026-11-22 23:59",
        "2026-11-22 00:00", "2026-11-16 00:00", "2026-11-15 23:59", "2026-10-31 23:59", "2025-12-31 23:59",
    ]  # fmt: skip
    backups = [at(one) for one in times]
    assert kept(backups, **policy) == (times if expected is None else expected)


def test_the_last_days_of_months_are_kept_by_month() -> None:
    backups = daily("2026-01-01 02:00", 120)
    assert kept(backups, monthly=4) == ["2026-04-30 02:00", "2026-03-31 02:00", "2026-02-28 02:00", "2026-01-31 02:00"]


def test_weeks_are_those_of_iso_over_the_new_year() -> None:
    reasons = outcome(daily("2026-12-20 02:00", 20), now=datetime(2027, 1, 8, 3, tzinfo=UTC), weekly=3)
    assert {label: why[-1] for label, why in reasons.items() if not why[0].startswith("-")} == {
        "2027-01-08 02:00": "weekly 1 of 3 (2027-W01)",
        "2027-01-03 02:00": "weekly 2 of 3 (2026-W53)",
        "2026-12-27 02:00": "weekly 3 of 3 (2026-W52)",
    }


def test_periods_are_those_of_utc() -> None:
    there = timezone(timedelta(hours=5))
    backups = [
        Candidate("evening", "prod", datetime(2026, 11, 22, 23, tzinfo=UTC).astimezone(there)),
        Candidate("morning", "prod", datetime(2026, 11, 23, 1, tzinfo=UTC).astimezone(there)),
    ]
    assert kept(backups, daily=2) == ["morning", "evening"]


def test_a_policy_without_a_rule_is_refused_and_lets_nothing_go() -> None:
    for nothing in ({}, {"last": 0, "daily": 0}, {"within": "", "tags": ()}):
        with pytest.raises(UsageError) as refused:
            decide([at("2026-11-23")], Policy(**nothing), NOW)
        assert refused.value.code == "usage.no-policy"


def test_without_backups_nothing_is_decided() -> None:
    assert decide([], Policy(last=1), NOW) == []


def test_partial_backups_fulfil_no_rule_and_stay_while_they_are_the_newest() -> None:
    backups = [
        at("2026-11-23", complete=False),
        at("2026-11-22", complete=False),
        at("2026-11-21"),
        at("2026-11-20", complete=False),
        at("2026-11-19"),
    ]
    assert outcome(backups, last=1, daily=9, within="2d") == {
        "2026-11-23": ["partial, and newer than the newest complete one"],
        "2026-11-22": ["partial, and newer than the newest complete one"],
        "2026-11-21": ["newest complete backup", "last 1 of 1", "daily 1 of 9 (2026-11-21)", "within 2d"],
        "2026-11-20": ["- partial, and older than a complete one"],
        "2026-11-19": ["daily 2 of 9 (2026-11-19)", "within 2d"],
    }


def test_where_nothing_is_complete_all_stay() -> None:
    backups = [at("2026-11-23", complete=False), at("2020-01-01", complete=False)]
    assert kept(backups, last=1) == ["2026-11-23", "2020-01-01"]


def test_partial_backups_stay_by_tag_and_by_pin() -> None:
    backups = [
        at("2026-11-23"),
        at("2026-11-22", complete=False, tags=frozenset({"a", "b"})),
        at("2026-11-21", complete=False, pinned="why"),
    ]
    assert outcome(backups, tags=("b", "c", "a")) == {
        "2026-11-23": ["newest complete backup"],
        "2026-11-22": ["tag b", "tag a"],
        "2026-11-21": ["pinned (why)"],
    }


def test_sources_and_selections_do_not_compete() -> None:
    backups = [
        at("2026-11-23", source="prod"),
        at("2026-11-22", source="staging"),
        at("2026-11-21", source="prod", selection="ORDERS"),
        at("2026-11-20", source="prod"),
        at("2026-11-19", source="staging"),
        at("2026-11-18", source="prod", selection="ORDERS"),
    ]
    assert kept(backups, last=1) == ["2026-11-23", "2026-11-22", "2026-11-21"]


def test_a_backup_from_the_future_stays_and_displaces_nothing() -> None:
    future = NOW + CLOCK_SKEW + timedelta(seconds=1)
    backups = [
        Candidate("future", "prod", future),
        Candidate("partial future", "prod", future, complete=False),
        Candidate("nearly", "prod", NOW + CLOCK_SKEW),
        at("2026-11-22"),
    ]
    assert outcome(backups, last=1) == {
        "partial future": ["its time lies in the future: a clock was wrong"],
        "future": ["its time lies in the future: a clock was wrong"],
        "nearly": ["newest complete backup", "last 1 of 1"],
        "2026-11-22": ["- no rule keeps it"],
    }


def test_within_counts_from_the_newest_backup_so_that_nothing_goes_because_backups_stopped() -> None:
    backups = [at("2026-05-10"), at("2026-05-09"), at("2026-05-01")]
    assert kept(backups, within="3d") == ["2026-05-10", "2026-05-09"]
    # But a clock that is ahead does not push them out either.
    ahead = [Candidate("ahead", "prod", NOW + CLOCK_SKEW), Candidate("edge", "prod", NOW - timedelta(days=3))]
    assert kept(ahead, within="3d") == ["ahead", "edge"]


def test_backups_of_one_moment_are_ordered_by_label() -> None:
    backups = [Candidate(label, "prod", NOW) for label in ("b", "a", "c")]
    assert list(outcome(backups, last=1)) == ["c", "b", "a"]
    assert kept(backups, last=1) == ["c"]


@pytest.mark.parametrize(
    ("moment", "duration", "expected"),
    [
        ("2026-11-23 13:15", "0h", "2026-11-23 13:15"),
        ("2026-11-23 13:15", "7d", "2026-11-16 13:15"),
        ("2026-11-23 13:15", "36h", "2026-11-22 01:15"),
        ("2026-11-23 13:15", "1m", "2026-10-23 13:15"),
        ("2026-03-31 13:15", "1m", "2026-02-28 13:15"),
        ("2024-03-31 13:15", "1m", "2024-02-29 13:15"),
        ("2024-02-29 13:15", "1y", "2023-02-28 13:15"),
        ("2024-02-29 13:15", "4y", "2020-02-29 13:15"),
        ("2026-12-31 00:00", "1m", "2026-11-30 00:00"),
        ("2026-12-31 00:00", "3m", "2026-09-30 00:00"),
        ("2026-01-15 00:00", "1m", "2025-12-15 00:00"),
        ("2026-01-15 00:00", "13m", "2024-12-15 00:00"),
        ("2026-11-23 13:15", "1y6m2d3h", "2025-05-21 10:15"),
        ("2026-11-23 13:15", "9999y", "0001-01-01 00:00"),
        ("2026-11-23 13:15", "999999d", "0001-01-01 00:00"),
        ("2026-11-23 13:15", "999999m", "0001-01-01 00:00"),
    ],
)
def test_durations_are_those_of_the_calendar(moment: str, duration: str, expected: str) -> None:
    found = subtract(datetime.fromisoformat(moment).replace(tzinfo=UTC), duration)
    assert found == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "duration", ["", "7", "d", "7w", "-7d", "7d1m", "1.5d", "7 d", "7D", "1m1m", "\u0667d", "7d\n", "9" * 9 + "d"]
)
def test_what_is_no_duration_is_refused(duration: str) -> None:
    with pytest.raises(UsageError) as refused:
        subtract(NOW, duration)
    assert refused.value.code == "usage.duration"
    if duration:
        with pytest.raises(UsageError):
            decide([], Policy(within=duration), NOW)
