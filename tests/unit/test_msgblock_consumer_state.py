from __future__ import annotations

import pytest

from jetkeep.codecs.msgblock.consumer_state import decode_consumer_state, encode_consumer_state
from jetkeep.errors import BadDataError
from jetkeep.model import ConsumerState, Pending, Position

SECOND = 1_000_000_000
FULL = ConsumerState(
    Position(60, 50),
    Position(40, 30),
    {31: Pending(45, 1_700_000_000 * SECOND), 48: Pending(60, 1_700_000_777 * SECOND), 50: Pending(59, 0)},
    {31: 3, 48: 2},
)


@pytest.mark.parametrize("state", [ConsumerState(), FULL, ConsumerState(Position(9, 2**63), Position(9, 2**63))])
def test_a_state_comes_back_as_it_was_written(state: ConsumerState) -> None:
    assert decode_consumer_state(encode_consumer_state(state), "c") == state


def test_times_lose_what_is_below_a_second() -> None:
    state = ConsumerState(pending={5: Pending(1, 1_700_000_000 * SECOND + 999_999_999)})
    assert decode_consumer_state(encode_consumer_state(state), "c").pending[5].ts == 1_700_000_000 * SECOND


def test_a_server_s_bytes_are_read() -> None:
    # Floor 5/10, delivered 8/20; pending 12 (delivery 7) and 20 (delivery 8), 3 s and 0 s before the base time.
    data = bytes([22, 2, 5, 10, 8, 20, 2, 200, 1, 2, 2, 6, 10, 3, 0, 1, 2, 4])
    state = decode_consumer_state(data, "c")
    assert (state.delivered, state.ack_floor) == ((8, 20), (5, 10))
    assert state.pending == {12: (7, 97 * SECOND), 20: (8, 100 * SECOND)}
    assert state.redelivered == {12: 4}


def test_version_1_counts_what_was_delivered_from_the_floor() -> None:
    # Floor 5/10; delivered 4/11, counted from the floor and one too high; pending 12, 3 s after the base; no consumer sequence.
    data = bytes([22, 1, 5, 10, 4, 11, 1, 200, 1, 2, 6, 0])
    state = decode_consumer_state(data, "c")
    assert (state.delivered, state.ack_floor) == ((8, 20), (5, 10))
    assert state.pending == {12: (0, 103 * SECOND)}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x16",
        b"\x16\x03\0\0\0\0\0\0",
        b"\x17\x02\0\0\0\0\0\0",
        encode_consumer_state(FULL)[:-1],
        encode_consumer_state(FULL) + b"\0",
        b"\x16\x02" + b"\xff" * 11,
        b"\x16\x02\0\0\0\0" + b"\xff\xff\xff\xff\x0f",
    ],
)
def test_what_is_no_state_is_refused(data: bytes) -> None:
    with pytest.raises(BadDataError, match="consumer c"):
        decode_consumer_state(data, "c")
