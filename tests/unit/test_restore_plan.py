"""What a plan decides, refuses and foretells, without any server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jetkeep.codecs.sequences import SequenceSet
from jetkeep.errors import CannotRestoreError, UsageError
from jetkeep.model import ConsumerRecord, ConsumerState, JsonDict, Position
from jetkeep.repository.documents import ConsumerDoc, Gap, Manifest, SegmentRef
from jetkeep.restore.decisions import Plan, RestoreOptions
from jetkeep.restore.fields import Version
from jetkeep.restore.forecast import Forecast
from jetkeep.restore.plan import drafts, make_plan
from jetkeep.restore.target import Existing, Target

NOW = 1_800_000_000_000_000_000
SECOND = 1_000_000_000


def manifest(name: str = "ORDERS", *, messages: int = 10, first: int = 1, **more: Any) -> Manifest:
    config = {
        "name": name,
        "subjects": [f"{name.lower()}.>"],
        "retention": "limits",
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msgs_per_subject": -1,
        "discard": "old",
        "storage": "file",
        "num_replicas": 1,
    } | more.pop("config", {})
    last = first + messages - 1
    segment = SegmentRef(
        key="k",
        sha256="0" * 64,
        bytes=100,
        first_seq=first,
        last_seq=last,
        count=messages,
        first_ts_ns=NOW - 100 * SECOND,
        last_ts_ns=NOW - 10 * SECOND,
        raw_bytes=40 * messages,
        fingerprint="0" * 32,
    )
    values: JsonDict = {
        "source": "nats",
        "stream": name,
        "timeline": "t",
        "label": "l",
        "kind": "full",
        "method": "snapshot",
        "reason": "",
        "captured_at_ns": NOW,
        "server_version": "2.15.1",
        "config": config,
        "created_at": "2026-11-23T00:00:00Z",
        "state": {},
        "messages": messages,
        "first_seq": first,
        "last_seq": last,
        "bytes": 40 * messages,
        "first_ts_ns": NOW - 100 * SECOND,
        "last_ts_ns": NOW - 10 * SECOND,
        "fingerprint": "0" * 32,
        "segments": [segment] if messages else [],
        "deleted": "",
        "gaps": [],
        "consumers": [],
        "notes": [],
    }
    return Manifest(**(values | more))


def target(version: str = "2.15.1", **more: Any) -> Target:
    return Target(Version.of(version), version, 1024 * 1024, **more)


def plan_of(
    *manifests: Manifest,
    to: Target | None = None,
    forecasts: dict[str, Forecast] | None = None,
    claims: frozenset[str] = frozenset(),
    **options: Any,
) -> Plan:
    to = to or target()
    chosen = RestoreOptions(**options)
    drafted = drafts(manifests, to, chosen, NOW)
    ends = {one.stream: one.last_seq for one in manifests}
    return make_plan(drafted, forecasts or {}, to, chosen, now_ns=NOW, own_claims=claims, ends=ends)


def codes(plan: Plan) -> list[str]:
    return [one.code for _, one in plan.refusals]


def test_a_plain_stream_goes_as_blocks_without_a_difference() -> None:
    step = plan_of(manifest()).steps[0]
    assert (step.writer, step.differences, step.losses, step.refusals) == ("tar", (), (), ())


@pytest.mark.parametrize(
    ("version", "storage", "writer"),
    [("2.15.1", "memory", "archive"), ("2.15.1", "file", "tar"), ("2.10.26", "file", "tar")],
)
def test_the_writer_follows_storage_and_version(version: str, storage: str, writer: str) -> None:
    step = plan_of(manifest(config={"storage": storage}), to=target(version)).steps[0]
    assert (step.writer, step.refusals) == (writer, ())
    assert step.reason


ONE_SERVER: list[tuple[str, Manifest, Target, str]] = [
    ("the name is taken", manifest(), target(streams={"ORDERS": Existing({"name": "ORDERS"})}), "restore.exists"),
    (
        "another run is at work on it",
        manifest(),
        target(streams={"ORDERS": Existing({"name": "ORDERS"}, 0, "repo/other")}),
        "restore.in-progress",
    ),
    ("the name is taken by a stream that is offline", manifest(), target(busy=frozenset({"ORDERS"})), "restore.exists"),
    ("replicas on a single server", manifest(config={"num_replicas": 3}), target(), "restore.replicas"),
    ("memory storage before 2.15", manifest(config={"storage": "memory"}), target("2.14.6"), "restore.memory-storage"),
    ("a server that is too old", manifest(), target("2.9.25"), "restore.version"),
    (
        "another stream has the subject",
        manifest(),
        target(streams={"OLD": Existing({"name": "OLD", "subjects": ["orders.new"]})}),
        "restore.loss-overlap",
    ),
    (
        "another stream has every subject",
        manifest(),
        target(streams={"ALL": Existing({"name": "ALL", "subjects": [">"]})}),
        "restore.overlap",
    ),
    (
        "no room in the account",
        manifest(),
        target(account={"limits": {"max_storage": 500}, "storage": 0}),
        "restore.account-limit",
    ),
    (
        "too many streams",
        manifest(),
        target(account={"limits": {"max_streams": 4}, "streams": 4}),
        "restore.account-limit",
    ),
    (
        "the account demands max_bytes",
        manifest(),
        target(account={"limits": {"max_bytes_required": True}}),
        "restore.account-limit",
    ),
    (
        "too many consumers",
        manifest(consumers=[ConsumerDoc.of(ConsumerRecord(name, {}, ConsumerState())) for name in "ab"]),
        target(account={"limits": {"max_consumers": 1}}),
        "restore.account-limit",
    ),
]


@pytest.mark.parametrize(
    ("stream", "to", "code"), [case[1:] for case in ONE_SERVER], ids=[case[0] for case in ONE_SERVER]
)
def test_what_cannot_end_well_is_refused_by_a_code(stream: Manifest, to: Target, code: str) -> None:
    plan = plan_of(stream, to=to)
    assert codes(plan) == [code]
    with pytest.raises(CannotRestoreError) as refused:
        plan.check()
    assert refused.value.code == code
    assert refused.value.hint
    assert "ORDERS" in refused.value.what


def test_tiers_of_an_account_are_looked_at_for_their_replicas() -> None:
    account = {"tiers": {"R3": {"limits": {"max_storage": 10}, "storage": 0}, "R1": {"limits": {"max_storage": -1}}}}
    one, three = manifest(), manifest(config={"num_replicas": 3})
    assert codes(plan_of(one, to=target(account=account))) == []
    assert codes(plan_of(three, to=target(account=account, clustered=True))) == ["restore.account-limit"]


def test_an_existing_stream_can_be_skipped() -> None:
    plan = plan_of(manifest(), to=target(streams={"ORDERS": Existing({"name": "ORDERS"})}), if_exists="skip")
    assert plan.steps[0].action == "skip"
    plan.check()


def test_an_own_dead_leftover_is_removed_and_not_taken_for_the_stream() -> None:
    to = target(streams={"ORDERS": Existing({"name": "ORDERS", "subjects": ["_restore.ORDERS"]}, 0, "repo/dead")})
    plan = plan_of(manifest(), to=to, claims=frozenset({"repo/dead"}), if_exists="skip")
    assert plan.steps[0].leftover
    assert plan.steps[0].action == "restore"
    plan.check()


LOSSES = {
    "max_age": Forecast(NOW, 10, 400, {"max_age": 4}),
    "max_msgs": Forecast(NOW, 10, 400, {"max_msgs": 3}),
    "max_payload": Forecast(NOW, 10, 400, {"max_payload": 1}, oversize=1),
}


@pytest.mark.parametrize("cause", LOSSES)
def test_losses_are_refused_in_numbers_unless_accepted(cause: str) -> None:
    forecast = LOSSES[cause]
    plan = plan_of(manifest(), forecasts={"ORDERS": forecast})
    assert codes(plan) == [f"restore.loss-{cause.replace('_', '-')}"]
    with pytest.raises(CannotRestoreError, match=f"{forecast.lost:,} messages"):
        plan.check()
    accepted = plan_of(manifest(), forecasts={"ORDERS": forecast}, accept_loss=True)
    accepted.check()
    assert [(one.cause, one.count) for one in accepted.steps[0].losses] == [(cause, forecast.lost)]


def test_what_waits_for_a_restart_is_named_as_such() -> None:
    late = Forecast(NOW, 10, 400, late={"max_msgs_per_subject": 2})
    loss = plan_of(manifest(), to=target("2.12.8"), forecasts={"ORDERS": late}).steps[0].losses[0]
    assert (loss.count, loss.when) == (2, "restart")


def test_accepting_loss_takes_memory_streams_to_disk_where_they_cannot_be_memory() -> None:
    step = plan_of(manifest(config={"storage": "memory"}), to=target("2.12.8"), accept_loss=True).steps[0]
    assert (step.config["storage"], step.writer, step.refusals) == ("file", "tar", ())
    assert any("storage" in one.what for one in step.differences)


def test_accepting_loss_opens_a_stream_without_the_subjects_that_another_has() -> None:
    to = target(streams={"OLD": Existing({"name": "OLD", "subjects": ["a.>"]})})
    one = plan_of(manifest(config={"subjects": ["a.b", "c"]}), to=to, accept_loss=True).steps[0]
    assert one.config["subjects"] == ["c"]
    all_taken = plan_of(manifest(config={"subjects": ["a.b"]}), to=to, accept_loss=True).steps[0]
    assert all_taken.config["subjects"] == ["_restore.ORDERS"]


def test_a_copy_beside_the_original_overlaps_with_it() -> None:
    to = target(streams={"ORDERS": Existing({"name": "ORDERS", "subjects": ["orders.>"]})})
    assert codes(plan_of(manifest(), to=to, as_name="COPY")) == ["restore.loss-overlap"]


def test_a_new_name_is_for_one_stream() -> None:
    with pytest.raises(UsageError):
        plan_of(manifest("A"), manifest("B"), as_name="C")


def test_origins_come_before_mirrors_and_sources() -> None:
    plan = plan_of(
        manifest("A", config={"subjects": None, "mirror": {"name": "Z"}}),
        manifest("B", config={"sources": [{"name": "A"}, {"name": "Z"}]}, messages=0),
        manifest("Z"),
    )
    names = [step.name for step in plan.steps]
    assert names.index("Z") < names.index("A") < names.index("B")
    assert plan.steps[-1].after == ("A", "Z")


def test_a_circle_of_sources_is_still_planned() -> None:
    plan = plan_of(
        manifest("A", config={"sources": [{"name": "B"}]}, messages=0),
        manifest("B", config={"sources": [{"name": "A"}]}, messages=0),
    )
    assert {step.name for step in plan.steps} == {"A", "B"}


def test_a_source_of_which_no_message_is_left_gets_its_start_from_the_backup() -> None:
    origin = manifest("O", messages=50)
    drained = manifest("W", messages=0, first=31, config={"retention": "workqueue", "sources": [{"name": "O"}]})
    step = plan_of(origin, drained).steps[1]
    assert step.config["sources"] == [{"name": "O", "opt_start_seq": 51}]
    assert any("opt_start_seq" in one.what for one in step.differences)


def test_a_source_that_the_messages_tell_of_is_left_alone() -> None:
    origin, full = manifest("O", messages=50), manifest("W", config={"sources": [{"name": "O"}]})
    told = Forecast(NOW, 10, 400, origins={("O", ">"): 10})
    step = plan_of(origin, full, forecasts={"W": told}).steps[1]
    assert step.config["sources"] == [{"name": "O"}]


def test_mirrors_that_will_stall_are_told() -> None:
    mirror = manifest("M", messages=30, config={"subjects": None, "mirror": {"name": "O"}})
    step = plan_of(mirror, to=target(streams={"O": Existing({"name": "O"}, last_seq=12)})).steps[0]
    assert any("stalls until O passes sequence 30" in one.what for one in step.differences)


def test_streams_at_the_target_that_follow_the_restored_one_are_told_what_happens() -> None:
    to = target(
        streams={
            "M": Existing({"name": "M", "mirror": {"name": "ORDERS"}}, last_seq=99),
            "S": Existing({"name": "S", "sources": [{"name": "ORDERS"}]}, last_seq=99),
        }
    )
    step = plan_of(manifest(), to=to).steps[0]
    assert any("mirror M" in one.what for one in step.differences)
    assert any("stream S" in one.what for one in step.differences)


def test_gaps_markers_and_schedules_are_told() -> None:
    gaps = [Gap(set=SequenceSet.from_ranges([(3, 5)]).encode(), reason="lost")]
    told = Forecast(NOW, 10, 400, markers=2, due=3)
    step = plan_of(manifest(gaps=gaps), forecasts={"ORDERS": told}).steps[0]
    text = " ".join(one.what for one in step.differences)
    assert "3 sequences are missing" in text
    assert "2 delete markers" in text
    assert "3 scheduled messages fire" in text


def test_what_was_asked_for_overrides_the_configuration_and_is_told() -> None:
    step = plan_of(
        manifest(config={"num_replicas": 3, "compression": "s2"}),
        replicas=1,
        storage="memory",
        cluster="east",
        tags=("ssd",),
    ).steps[0]
    assert (step.config["num_replicas"], step.config["storage"], step.config["compression"]) == (1, "memory", "none")
    assert step.config["placement"] == {"cluster": "east", "tags": ["ssd"]}
    assert len(step.differences) >= 4
    assert not step.refusals


def test_a_first_sequence_above_the_messages_is_taken_out() -> None:
    """A server drops at its next restart what is below it."""
    assert plan_of(manifest(config={"first_seq": 20})).steps[0].config["first_seq"] == 0
    assert plan_of(manifest(config={"first_seq": 20}, first=20)).steps[0].config["first_seq"] == 20


def test_consumers_with_a_floor_that_servers_ignore_are_lifted_and_told() -> None:
    low = ConsumerRecord("c", {"durable_name": "c"}, ConsumerState(Position(3, 3), Position(2, 2)))
    step = plan_of(manifest(first=100, consumers=[ConsumerDoc.of(low)])).steps[0]
    assert step.consumers[0].state == ConsumerState(Position(3, 99), Position(2, 99))
    assert any("ack floor 2 → 99" in one.why for one in step.differences)


def test_consumers_that_the_target_cannot_have_are_a_loss() -> None:
    flow = ConsumerRecord("f", {"durable_name": "f", "ack_policy": "flow_control"}, ConsumerState())
    step = plan_of(manifest(consumers=[ConsumerDoc.of(flow)]), to=target("2.12.8")).steps[0]
    assert step.consumers == ()
    assert [(one.cause, one.count, one.unit) for one in step.losses] == [("consumers", 1, "consumers")]


def test_consumers_have_no_more_replicas_than_their_stream() -> None:
    three = ConsumerRecord("c", {"durable_name": "c", "num_replicas": 3}, ConsumerState())
    step = plan_of(manifest(config={"num_replicas": 3}, consumers=[ConsumerDoc.of(three)]), replicas=1).steps[0]
    assert step.consumers[0].config["num_replicas"] == 1


def test_a_plan_is_one_json_document() -> None:
    plan = plan_of(manifest("A"), manifest("B", config={"storage": "memory"}), to=target("2.12.8"))
    told = json.loads(json.dumps(plan.to_dict()))
    assert [one["stream"] for one in told["steps"]] == ["A", "B"]
    assert told["steps"][1]["refusals"][0]["code"] == "restore.memory-storage"


SCANS: list[tuple[str, Manifest, str]] = [
    ("nothing can bite", manifest(), ""),
    ("nothing is there", manifest(messages=0, config={"max_msgs": 1, "max_age": 1}), ""),
    ("all are young", manifest(config={"max_age": 200 * SECOND}), ""),
    ("some are old", manifest(config={"max_age": 50 * SECOND}), "max_age"),
    ("more than max_msgs", manifest(config={"max_msgs": 9}), "max_msgs"),
    ("discard new drops nothing", manifest(config={"max_msgs": 9, "max_bytes": 10, "discard": "new"}), ""),
    ("perhaps more than max_bytes", manifest(config={"max_bytes": 500}), "max_bytes"),
    ("surely within max_bytes", manifest(config={"max_bytes": 580}), ""),
    ("the source has kept to it", manifest(config={"max_msgs_per_subject": 3}), ""),
    (
        "an older source may not have",
        manifest(config={"max_msgs_per_subject": 3}, server_version="2.11.11"),
        "max_msgs_per_subject",
    ),
    ("messages have their own TTL", manifest(config={"allow_msg_ttl": True}), "Nats-TTL"),
    ("messages are schedules", manifest(config={"allow_msg_schedules": True}), "Nats-Schedule"),
    ("messages tell their origins", manifest(config={"sources": [{"name": "O"}]}), "sources"),
    ("sealed keeps all", manifest(config={"sealed": True, "max_age": 1, "max_msgs": 1}), ""),
]


@pytest.mark.parametrize(("stream", "why"), [case[1:] for case in SCANS], ids=[case[0] for case in SCANS])
def test_messages_are_only_looked_at_where_a_limit_can_bite(stream: Manifest, why: str) -> None:
    assert drafts([stream], target(), RestoreOptions(), NOW)[0].scan == why


def test_large_segments_make_a_look_at_message_sizes_necessary() -> None:
    one = manifest(config={"storage": "memory"})
    one.segments[0].raw_bytes = 2 * 1024 * 1024
    assert drafts([one], target(), RestoreOptions(), NOW)[0].scan == "Nats-TTL, max_payload"
