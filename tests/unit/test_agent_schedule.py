"""When something is due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jetkeep.agent import schedules_of
from jetkeep.agent.schedule import Schedule
from jetkeep.config.file import ScheduleTable, parse_config
from jetkeep.errors import UsageError


def schedule(cron: str, name: str = "backup", **rest: str) -> Schedule:
    (found,) = schedules_of({name: ScheduleTable(cron=cron, **rest)})  # type: ignore[arg-type]
    return found


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_times_are_those_of_the_time_zone_across_changes_of_the_clock() -> None:
    night = schedule("0 2 * * *", time_zone="Europe/Berlin")
    assert night.after(at("2026-07-01T05:00")) == at("2026-07-02T00:00")
    assert night.after(at("2026-12-01T05:00")) == at("2026-12-02T01:00")
    # 02:00 is not there in the night in which the clock goes forward, and is there twice when it goes back.
    spring, seen = at("2026-03-28T12:00"), []
    for _ in range(2):
        spring = night.after(spring)
        seen.append(spring)
    assert seen == [at("2026-03-29T01:00"), at("2026-03-30T00:00")]
    autumn = night.after(at("2026-10-24T12:00"))
    assert night.after(autumn) - autumn == timedelta(hours=25)


def test_the_newest_time_that_has_passed_includes_now() -> None:
    hourly = schedule("0 * * * *")
    assert hourly.before(at("2026-11-24T10:00")) == at("2026-11-24T10:00")
    assert hourly.before(at("2026-11-24T10:59:59")) == at("2026-11-24T10:00")
    assert hourly.after(at("2026-11-24T10:00")) == at("2026-11-24T11:00")


def test_jitter_delays_each_time_differently_and_every_replica_alike() -> None:
    one, other = schedule("0 * * * *", jitter="10m"), schedule("0 * * * *", jitter="10m")
    times = [at(f"2026-11-24T{hour:02}:00") for hour in range(24)]
    assert [one.due(moment) for moment in times] == [other.due(moment) for moment in times]
    delays = {(one.due(moment) - moment).total_seconds() for moment in times}
    assert len(delays) == 24
    assert 0 <= min(delays) < max(delays) < 600
    assert one.due(times[0]) != schedule("0 * * * *", "backup-more", jitter="10m").due(times[0])


@pytest.mark.parametrize(
    ("name", "table", "what"),
    [
        ("bakcup", {"cron": "0 2 * * *"}, "cannot be scheduled"),
        ("restore", {"cron": "0 2 * * *"}, "cannot be scheduled"),
        ("backup", {"cron": "0 2 * *"}, "five fields"),
        ("backup", {"cron": "0 2 * * * *"}, "five fields"),
        ("backup", {"cron": "0 25 * * *"}, "no cron expression"),
        ("backup", {"cron": "0 2 30 2 *"}, "no cron expression"),
        ("backup", {"cron": "0 2 * * *", "time_zone": "Mars/Olympus"}, "no time zone"),
        ("backup", {"cron": "0 2 * * *", "time_zone": "../etc"}, "no time zone"),
        ("backup", {"cron": "0 2 * * *", "jitter": "soon"}, "no duration"),
    ],
)
def test_a_mistake_in_a_schedule_is_told(name: str, table: dict[str, str], what: str) -> None:
    with pytest.raises(UsageError, match=what) as refused:
        schedules_of({name: ScheduleTable(**table)})  # type: ignore[arg-type]
    assert refused.value.hint


def test_several_schedules_of_a_kind_have_names() -> None:
    text = "[schedules.backup]\ncron='0 2 * * *'\n[schedules.backup-hourly]\ncron='0 * * * *'\narguments=['ORDERS']"
    found = schedules_of(parse_config(text, "x").schedules)
    assert [(one.name, one.kind, one.arguments) for one in found] == [
        ("backup", "backup", ()),
        ("backup-hourly", "backup", ("ORDERS",)),
    ]
