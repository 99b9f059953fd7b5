"""What capture decides without any server: which way to read, what to select, whether the counts can be right."""

from __future__ import annotations

import pytest

from jetkeep.assembly.manifest import bounds
from jetkeep.capture.reading import account_for
from jetkeep.capture.road import choose_road, parse_version
from jetkeep.capture.selection import select
from jetkeep.errors import BadDataError, UsageError


@pytest.mark.parametrize(
    ("version", "config", "method"),
    [
        ("2.10.26", {"storage": "file", "retention": "limits"}, "snapshot"),
        ("2.10.26", {"storage": "memory", "retention": "limits"}, "messages"),
        ("2.14.6", {"storage": "memory", "retention": "limits"}, "messages"),
        ("2.15.1", {"storage": "memory", "retention": "limits"}, "snapshot"),
        ("2.11.11", {"storage": "file", "retention": "workqueue"}, "messages"),
        ("2.10.26", {"storage": "file", "retention": "interest"}, "messages"),
        ("2.12.8", {"storage": "file", "retention": "workqueue"}, "snapshot"),
    ],
)
def test_the_way_to_read_follows_the_server_and_the_stream(version: str, config: dict[str, str], method: str) -> None:
    road = choose_road(parse_version(version), config)
    assert road.method == method
    assert road.reason


def test_a_version_with_a_suffix_is_still_a_version() -> None:
    assert parse_version("2.15.0-RC.1") == (2, 15, 0)
    assert parse_version("2.12") == (2, 12, 0)


def test_globs_include_and_exclude() -> None:
    names = ["KV_a", "KV_b", "ORDERS", "tmp-1"]
    assert select(names, [], []) == names
    assert select(names, ["KV_*"], ["KV_b"]) == ["KV_a"]
    assert select(names, [], ["tmp-*"]) == ["KV_a", "KV_b", "ORDERS"]


def test_a_name_that_matches_nothing_is_refused_and_not_skipped() -> None:
    with pytest.raises(UsageError, match="ODERS") as caught:
        select(["ORDERS"], ["ORDERS", "ODERS"], [])
    assert caught.value.exit_status == 2


def test_bounds_of_empty_streams_are_those_of_the_format() -> None:
    assert bounds({"first_seq": 0, "last_seq": 0}, 0) == (0, 0)
    assert bounds({"first_seq": 1, "last_seq": 0}, 0) == (0, 0)
    assert bounds({"first_seq": 8, "last_seq": 7}, 0) == (8, 7)
    assert bounds({"first_seq": 3, "last_seq": 9}, 2) == (3, 9)
    # Everything was removed while it was read.
    assert bounds({"first_seq": 3, "last_seq": 9}, 0) == (10, 9)


STATE = {"messages": 100, "first_seq": 1, "last_seq": 100}


def test_an_archive_without_messages_of_a_stream_that_has_them_is_an_error() -> None:
    with pytest.raises(BadDataError, match="holds 100 messages and gave 0") as caught:
        account_for("ORDERS", STATE, 0, STATE)
    assert caught.value.code == "data.count"


def test_more_messages_than_the_server_promised_is_an_error() -> None:
    with pytest.raises(BadDataError):
        account_for("ORDERS", STATE, 101, STATE)


def test_messages_that_users_removed_meanwhile_are_explained() -> None:
    after = {"messages": 95, "first_seq": 1, "last_seq": 105}
    assert account_for("ORDERS", STATE, 90, after) == [
        "10 of 100 messages were removed by users or limits while the stream was read"
    ]
    with pytest.raises(BadDataError, match="at most 10 can have been removed"):
        account_for("ORDERS", STATE, 89, after)


def test_a_stream_that_is_gone_explains_nothing() -> None:
    assert account_for("ORDERS", STATE, 100, None) == []
    with pytest.raises(BadDataError, match="not there any more"):
        account_for("ORDERS", STATE, 99, None)
