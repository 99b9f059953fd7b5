"""What an export says of a stream."""

from __future__ import annotations

from typing import Any

import pytest

from jetkeep.interchange.composing import (
    compose_config,
    compose_consumers,
    compose_state,
    file_store_bytes,
    known_stored_bytes,
)
from jetkeep.model import ConsumerRecord, ConsumerState, Pending, Position
from jetkeep.repository.documents import ConsumerDoc, Manifest

CONFIG = {"name": "S", "storage": "file", "metadata": {"_nats.req.level": "0", "team": "a"}}


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "source": "nats",
        "stream": "S",
        "timeline": "20261123T131500-000000000",
        "label": "l",
        "kind": "full",
        "method": "snapshot",
        "reason": "",
        "captured_at_ns": 0,
        "server_version": "2.15.1",
        "config": CONFIG,
        "created_at": "2026-11-23T13:15:00Z",
        "state": {"messages": 10, "bytes": 400, "first_seq": 5, "last_seq": 20},
        "messages": 10,
        "first_seq": 5,
        "last_seq": 20,
        "bytes": 240,
        "first_ts_ns": 1,
        "last_ts_ns": 1_000_000_002,
        "fingerprint": "",
        "segments": [],
        "deleted": "",
        "gaps": [],
        "consumers": [],
        "notes": [],
    }
    return Manifest(**{**fields, **changes})


def test_what_a_server_says_of_itself_is_not_exported() -> None:
    config, notes = compose_config(manifest(), "archive")
    assert (config["metadata"], notes) == ({"team": "a"}, [])
    only = manifest(config={**CONFIG, "metadata": {"_nats.ver": "2.15.1"}})
    assert "metadata" not in compose_config(only, "tar")[0]
    assert only.config["metadata"] == {"_nats.ver": "2.15.1"}


def test_a_tar_is_never_restored_into_memory_where_it_would_be_empty() -> None:
    memory = manifest(config={**CONFIG, "storage": "memory"})
    config, notes = compose_config(memory, "tar")
    assert config["storage"] == "file"
    assert "empty" in notes[0]
    assert compose_config(memory, "archive") == ({**config, "storage": "memory"}, [])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 400),  # 240 + 140 = 380 without headers, 420 when all have some: 400 can be right
        ({"state": {"messages": 9, "bytes": 400}}, None),  # the server's sum is about other messages
        ({"state": {"messages": 10, "bytes": 379}}, None),
        ({"state": {"messages": 10, "bytes": 421}}, None),
        ({"state": {"messages": 10}}, None),
        ({"config": {**CONFIG, "storage": "memory"}}, 240),
        ({"messages": 0, "bytes": 0, "state": {"messages": 0, "bytes": 0}}, 0),
    ],
)
def test_the_servers_own_sum_is_used_when_it_can_be_right(changes: dict[str, Any], expected: int | None) -> None:
    one = manifest(**changes)
    assert known_stored_bytes(one, one.config) == expected


def test_memory_streams_that_are_exported_to_files_are_measured() -> None:
    one = manifest(config={**CONFIG, "storage": "memory"}, state={"messages": 10, "bytes": 400})
    assert known_stored_bytes(one, compose_config(one, "tar")[0]) is None
    assert file_store_bytes(240, 10, 3) == 240 + 140 + 12


def test_the_state_is_of_the_messages_that_are_there() -> None:
    state = compose_state(manifest(messages=8, consumers=[_doc()]), 333)
    assert state == {
        "messages": 8,
        "bytes": 333,
        "first_seq": 5,
        "first_ts": "1970-01-01T00:00:00.000000001Z",
        "last_seq": 20,
        "last_ts": "1970-01-01T00:00:01.000000002Z",
        "consumer_count": 1,
    }
    given = {"first_ts": "2026-11-23T13:15:00Z", "last_ts": "2026-11-23T13:16:00.5Z"}
    assert compose_state(manifest(state=given), 1).items() >= given.items()


def _doc(state: ConsumerState | None = None) -> ConsumerDoc:
    return ConsumerDoc.of(ConsumerRecord("c", CONFIG, state or ConsumerState()))


def test_a_floor_below_the_first_message_is_lifted_so_that_the_state_is_not_ignored() -> None:
    low = ConsumerState(
        Position(9, 8), Position(1, 2), {3: Pending(2, 1), 4: Pending(3, 1), 6: Pending(5, 1)}, {4: 1, 6: 2}
    )
    (consumer,), notes = compose_consumers(manifest(consumers=[_doc(low)]), "tar")
    assert not notes
    assert consumer.state == ConsumerState(Position(9, 8), Position(1, 4), {6: Pending(5, 1)}, {6: 2})
    assert consumer.config["metadata"] == {"team": "a"}


def test_a_tar_does_not_bring_back_the_state_of_consumers_in_memory() -> None:
    doc = ConsumerDoc.of(ConsumerRecord("m", {"name": "m", "mem_storage": True}, ConsumerState(), None))
    (consumer,), notes = compose_consumers(manifest(consumers=[doc]), "tar")
    assert "mem_storage" not in consumer.config
    assert "consumers m" in notes[0]
    (consumer,), notes = compose_consumers(manifest(consumers=[doc]), "archive")
    assert consumer.config["mem_storage"]
    assert not notes


@pytest.mark.parametrize(
    ("delivered", "floor", "expected"),
    [
        ((0, 0), (0, 0), ((0, 4), (0, 4))),
        ((9, 8), (7, 6), ((9, 8), (7, 6))),
        ((99, 30), (7, 6), ((99, 20), (7, 6))),
        ((99, 30), (98, 25), ((99, 20), (98, 20))),
    ],
)
def test_positions_stay_inside_the_stream(
    delivered: tuple[int, int], floor: tuple[int, int], expected: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    state = ConsumerState(Position(*delivered), Position(*floor)).within(5, 20)
    assert (state.delivered, state.ack_floor) == expected


def test_positions_in_an_empty_stream_stay_where_they_are() -> None:
    state = ConsumerState(Position(3, 20), Position(3, 20))
    assert state.within(21, 20) is state
    assert ConsumerState().within(0, 0) == ConsumerState()
