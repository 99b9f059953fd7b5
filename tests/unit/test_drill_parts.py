"""The pure parts of a drill: secrets, the configuration under which it restores, what counts as the same consumer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from jetkeep.drill.neutral import neutral
from jetkeep.drill.phases import RECOVERY, Phases
from jetkeep.drill.redaction import HIDDEN, redacted, secrets_of
from jetkeep.drill.streams import LISTED, StreamFindings, compare_consumers
from jetkeep.model import ConsumerRecord, ConsumerState, Pending, Position
from jetkeep.repository.documents import Manifest
from jetkeep.restore.fields import Version

SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
JWT = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.eyJqdGkiOiJBQkMifQ.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("nats -s nats://me:hunter22@host:4222 stream ls", "hunter22"),
        ("NATS_URL=tls://t0ken-of-mine@host", "t0ken-of-mine"),
        ("nats --password hunter22 stream ls", "hunter22"),
        ("nats --token='hunter 22' stream ls", "hunter 22"),
        ('{"secret": "hunter22", "user": "me"}', "hunter22"),
        ("password: hunter22", "hunter22"),
        ("api_key=hunter22;next", "hunter22"),
        (f"seed {SEED} end", SEED),
        (f"jwt {JWT} end", JWT),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str, secret: str) -> None:
    assert secret not in redacted(text)
    assert HIDDEN in redacted(text)


@pytest.mark.parametrize(
    "text", ["12 orders, all good", "a token bucket of 5", "nats://127.0.0.1:4222", "user@example.com", "SUCCESSFUL"]
)
def test_ordinary_words_stay(text: str) -> None:
    assert redacted(text) == text


def test_known_values_are_hidden_wherever_they_stand() -> None:
    environment = {
        "DB_PASSWORD": "hunter22",
        "SSH_AUTH_SOCK": "/run/x",
        "MY_KEY": "abc",
        "NATS_TOKEN": "hunter22-longer",
    }
    known = secrets_of(environment)
    assert sorted(known) == ["hunter22", "hunter22-longer"]
    assert redacted("xhunter22-longery hunter22", known) == f"x{HIDDEN}y {HIDDEN}"


def manifest(**config: Any) -> Manifest:
    return Manifest(
        source="s", stream="S", timeline="t", label="l", kind="full", method="snapshot", reason="", captured_at_ns=0,
        server_version="2.15.1", config={"name": "S", "subjects": ["s.>"], "storage": "file", "num_replicas": 1, **config}, created_at="", state={},
        messages=0, first_seq=0, last_seq=0, bytes=0, first_ts_ns=0, last_ts_ns=0, fingerprint="0" * 32, segments=[],
        deleted="", gaps=[], consumers=[], notes=[],
    )  # fmt: skip


def test_a_rehearsal_takes_off_what_drops_fires_or_reaches_out() -> None:
    config = {
        "max_age": 5,
        "max_msgs": 7,
        "republish": {"src": ">", "dest": "x.>"},
        "storage": "memory",
        "sealed": True,
    }
    rehearsed, changed = neutral(manifest(**config), Version(2, 15))
    assert changed == ["max_age", "max_msgs", "republish", "sealed"]
    assert rehearsed.config["storage"] == "memory"
    assert neutral(manifest(**config), Version(2, 14))[0].config["storage"] == "file"
    assert neutral(manifest(), Version(2, 10))[1] == []


@pytest.mark.parametrize(
    "config", [{"mirror": {"name": "O"}, "subjects": None}, {"subjects": [">"]}, {"subjects": ["*.S"]}]
)
def test_a_stream_without_subjects_or_with_all_of_them_listens_to_nobody(config: dict[str, Any]) -> None:
    rehearsed, changed = neutral(manifest(**config), Version(2, 15))
    assert rehearsed.config["subjects"] == ["_drill.S"]
    assert "subjects" in changed


def record(name: str = "c", state: ConsumerState | None = None, **config: Any) -> ConsumerRecord:
    return ConsumerRecord(name, {"durable_name": name, **config}, state or ConsumerState())


def told(name: str = "c", delivered: int = 0, pending: int = 0, redelivered: int = 0) -> dict[str, Any]:
    position = {"consumer_seq": delivered, "stream_seq": delivered}
    nothing = {"consumer_seq": 0, "stream_seq": 0}
    return {
        "name": name,
        "delivered": position,
        "ack_floor": nothing,
        "num_ack_pending": pending,
        "num_redelivered": redelivered,
    }


def compared(records: list[ConsumerRecord], infos: list[dict[str, Any]]) -> StreamFindings:
    findings = StreamFindings(manifest())
    done: Any = SimpleNamespace(step=SimpleNamespace(consumers=tuple(records)))
    compare_consumers(findings, done, infos)
    return findings


def test_a_consumer_that_differs_fails_and_says_how() -> None:
    findings = compared([record()], [told(delivered=3)])
    assert findings.wrong == [
        "consumer c: delivered is {'consumer_seq': 3, 'stream_seq': 3}, not {'consumer_seq': 0, 'stream_seq': 0}"
    ]
    assert findings.consumers[0]["verdict"] == "FAILED"
    assert compared([record()], []).wrong == ["consumer c is not there"]


def test_known_deviations_of_consumers_are_named_and_do_not_fail() -> None:
    ephemeral = ConsumerRecord("e", {}, ConsumerState())
    state = ConsumerState(Position(2, 2), Position(0, 0), {1: Pending(1, 0), 2: Pending(2, 0)})
    findings = compared([ephemeral, record(state=state, max_deliver=1)], [told(delivered=2)])
    assert findings.wrong == []
    assert len(findings.deviations) == 2
    assert compared([record(state=state)], [told(delivered=2)]).wrong


def test_redelivered_counts_are_the_same_in_both_ways_of_counting() -> None:
    state = ConsumerState(Position(2, 2), Position(0, 0), {1: Pending(1, 0)}, {1: 1, 2: 1})
    for count, good in ((2, True), (1, True), (0, False), (3, False)):
        assert compared([record(state=state)], [told(delivered=2, pending=1, redelivered=count)]).good is good


def test_many_equal_consumers_are_not_all_listed_but_each_that_differs() -> None:
    names = [f"c{at:05d}" for at in range(LISTED + 50)]
    infos = [told(name, delivered=1 if name == names[-1] else 0) for name in names]
    findings = compared([record(name) for name in names], infos)
    assert len(findings.consumers) == LISTED + 1
    assert findings.consumers[-1] == {**findings.consumers[-1], "name": names[-1], "verdict": "FAILED"}


def test_the_recovery_time_is_the_sum_of_what_a_recovery_has() -> None:
    phases = Phases()
    streams = [
        SimpleNamespace(seconds={"fetch": 1.0, "send": 2.0, "compare": 1.0}),
        SimpleNamespace(seconds={"send": 4.0}),
    ]
    report: Any = SimpleNamespace(plan_seconds=0.5, seconds=4.5, streams=streams)
    phases.restored(report)
    with phases.phase("user check"):
        pass
    assert phases.seconds["send"] == pytest.approx(3.0)
    assert phases.rto_s == pytest.approx(4.5)
    assert set(phases.seconds) <= {*RECOVERY, "user check"}
