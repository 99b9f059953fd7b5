"""The small pure parts of a restore: fields, order, subjects, stages, consumers."""

from __future__ import annotations

import pytest

from jetkeep.model import ConsumerRecord, ConsumerState, JsonDict, Pending, Position
from jetkeep.restore.consumers import compare
from jetkeep.restore.fields import Version, fit, fit_consumer
from jetkeep.restore.stage import CLAIM, claim_of, staged
from jetkeep.restore.subjects import overlap


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("2.12.8", (2, 12, 8)),
        ("v2.15.1-RC.2", (2, 15, 1)),
        ("2.10", (2, 10, 0)),
        ("", (2, 10, 0)),
        ("dev", (2, 10, 0)),
    ],
)
def test_versions_are_read(text: str, version: tuple[int, int, int]) -> None:
    assert Version.of(text) == version


@pytest.mark.parametrize(
    ("left", "right", "both"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.c", True),
        ("a.*", "*.c", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a", "a.>", False),
        (">", "x", True),
        ("a.*.c", "a.b.>", True),
        ("a.*", "a.b.c", False),
    ],
)
def test_subjects_overlap(left: str, right: str, both: bool) -> None:
    assert overlap(left, right) is both
    assert overlap(right, left) is both


def test_the_servers_own_metadata_goes_without_a_word() -> None:
    fitted, dropped = fit(
        {"name": "S", "metadata": {"_nats.req.level": "2", "_nats.ver": "x", "a": "b"}}, Version(2, 11)
    )
    assert fitted == {"name": "S", "metadata": {"a": "b"}}
    assert dropped == []


def test_fields_that_the_target_does_not_know_are_named_with_what_that_means() -> None:
    config = {
        "name": "S",
        "allow_msg_counter": True,
        "allow_msg_ttl": False,
        "mirror": {"name": "O", "consumer": {"name": "c"}},
        "sources": [{"name": "P"}, {"name": "Q", "consumer": {"name": "c"}}],
    }
    fitted, dropped = fit(config, Version(2, 11))
    assert fitted == {
        "name": "S",
        "allow_msg_ttl": False,
        "mirror": {"name": "O"},
        "sources": [{"name": "P"}, {"name": "Q"}],
    }
    assert [one.path for one in dropped] == ["allow_msg_counter", "mirror.consumer", "sources[1].consumer"]
    assert "plain messages" in dropped[0].why
    assert config["mirror"] == {"name": "O", "consumer": {"name": "c"}}


def test_fields_that_say_nothing_are_dropped_in_silence() -> None:
    assert fit({"name": "S", "allow_batched": False, "persist_mode": "default"}, Version(2, 10)) == ({"name": "S"}, [])


def test_fields_of_the_future_stay_for_a_server_that_is_as_new_as_the_one_that_wrote_them() -> None:
    assert fit({"name": "S", "novel": 1}, Version(2, 17), Version(2, 16))[0] == {"name": "S", "novel": 1}
    fitted, dropped = fit({"name": "S", "novel": 1}, Version(2, 15), Version(2, 16))
    assert fitted == {"name": "S"}
    assert [one.path for one in dropped] == ["novel"]


def test_2_10_gets_no_first_sequence() -> None:
    fitted, dropped = fit({"name": "S", "first_seq": 20}, Version(2, 10))
    assert "first_seq" not in fitted
    assert "next restart" in dropped[0].why
    assert fit({"name": "S", "first_seq": 20}, Version(2, 11)) == ({"name": "S", "first_seq": 20}, [])


def test_priorities_go_together() -> None:
    config = {"durable_name": "c", "priority_policy": "prioritized", "priority_groups": ["A"], "priority_timeout": 5}
    fitted, dropped = fit_consumer(config, Version(2, 11))
    assert fitted == {"durable_name": "c"}
    assert {one.path for one in dropped} == {"priority_policy", "priority_groups", "priority_timeout"}
    assert fit_consumer(config, Version(2, 12)) == (config, [])


def test_a_consumer_that_cannot_exist_is_none() -> None:
    assert fit_consumer({"ack_policy": "flow_control"}, Version(2, 12))[0] is None
    assert fit_consumer({"ack_policy": "flow_control"}, Version(2, 14))[0] == {"ack_policy": "flow_control"}


FULL = {
    "name": "S",
    "subjects": ["a.>"],
    "storage": "file",
    "retention": "workqueue",
    "num_replicas": 3,
    "max_age": 5,
    "max_msgs": 5,
    "max_bytes": 5,
    "max_msgs_per_subject": 5,
    "discard": "new",
    "allow_msg_ttl": True,
    "subject_delete_marker_ttl": 5,
    "allow_msg_schedules": True,
    "allow_msg_counter": True,
    "persist_mode": "async",
    "republish": {"dest": "x"},
    "sources": [{"name": "O"}],
    "subject_transform": {"src": "a", "dest": "b"},
    "sealed": True,
    "deny_delete": True,
    "metadata": {"mine": "1"},
    "max_consumers": 4,
    "first_seq": 9,
}


def test_a_stage_takes_no_publishes_and_drops_nothing() -> None:
    stage = staged(FULL, "repo/nonce", bounded=False)
    assert stage == {
        "name": "S",
        "storage": "file",
        "retention": "workqueue",
        "num_replicas": 3,
        "allow_msg_counter": True,
        "persist_mode": "async",
        "max_consumers": 4,
        "subjects": ["_restore.S"],
        "max_msgs": -1,
        "max_bytes": -1,
        "max_msgs_per_subject": -1,
        "max_age": 0,
        "discard": "old",
        "metadata": {CLAIM: "repo/nonce"},
    }
    assert claim_of(stage) == "repo/nonce"
    assert claim_of(FULL) == ""


def test_a_stage_in_an_account_that_demands_a_limit_has_it_and_drops_nothing() -> None:
    stage = staged(FULL, "c", bounded=True)
    assert (stage["max_bytes"], stage["discard"]) == (5, "new")


def test_a_staged_mirror_has_no_subjects() -> None:
    stage = staged({"name": "M", "mirror": {"name": "O"}}, "c", bounded=False)
    assert "subjects" not in stage
    assert stage["mirror"] == {"name": "O"}


def record(state: ConsumerState | None = None, **config: object) -> ConsumerRecord:
    return ConsumerRecord("c", {"durable_name": "c", **config}, state or ConsumerState())


STATE = ConsumerState(Position(5, 9), Position(2, 4), {7: Pending(4, 1_500_000_001)}, {7: 2})


def test_equal_consumers_are_equal() -> None:
    assert compare(record(STATE), record(STATE, max_waiting=512, pause_until="x"), "archive") == []


def test_blocks_carry_delivery_times_in_seconds() -> None:
    whole = ConsumerState(STATE.delivered, STATE.ack_floor, {7: Pending(4, 1_000_000_000)}, {7: 2})
    assert compare(record(STATE), record(whole), "tar") == []
    assert len(compare(record(STATE), record(whole), "archive")) == 1


@pytest.mark.parametrize(
    "found",
    [
        None,
        record(ConsumerState(Position(5, 8), STATE.ack_floor, STATE.pending, STATE.redelivered)),
        record(ConsumerState(STATE.delivered, Position(2, 3), STATE.pending, STATE.redelivered)),
        record(ConsumerState(STATE.delivered, STATE.ack_floor, {}, STATE.redelivered)),
        record(ConsumerState(STATE.delivered, STATE.ack_floor, STATE.pending, {})),
        record(STATE, filter_subject="x"),
        record(STATE, metadata={"a": "b"}),
    ],
)
def test_every_difference_of_a_consumer_is_found(found: ConsumerRecord | None) -> None:
    wrong = compare(
        record(STATE, filter_subject="y") if found and "filter_subject" in found.config else record(STATE), found, "tar"
    )
    assert len(wrong) == 1
    assert "consumer c" in wrong[0]


def test_defaults_that_a_server_fills_in_are_no_difference() -> None:
    sent: JsonDict = {"max_deliver": -1, "headers_only": False, "metadata": {}}
    assert compare(record(None, **sent), record(None, ack_wait=5), "tar") == []
