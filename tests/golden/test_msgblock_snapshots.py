"""Snapshots that real servers sent, against what these servers told message by message (msgblock/make.py)."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from jetkeep.codecs.s2 import S2Decoder
from jetkeep.errors import BadDataError
from jetkeep.model import Message
from tests.golden.msgblock.make import STREAM
from tests.msgblocks import decode
from tests.versions import VERSIONS

SNAPSHOTS = Path(__file__).parent / "msgblock"
SENDERS = [version for version in VERSIONS if version < "2.15"]


def snapshot(version: str) -> tuple[bytes, dict[str, Any]]:
    s2 = S2Decoder()
    tar = b"".join(bytes(part) for part in s2.feed((SNAPSHOTS / f"{version}.tar.s2").read_bytes()))
    s2.close()
    return tar, json.loads((SNAPSHOTS / f"{version}.json").read_text())


@pytest.mark.parametrize("version", SENDERS)
@pytest.mark.parametrize("piece", [1, 700, 1 << 20])
def test_a_server_s_snapshot_is_read_exactly(version: str, piece: int) -> None:
    tar, server = snapshot(version)
    found = decode(tar, STREAM, server["state"]["last_seq"], piece=piece)
    assert found.live == [
        Message(seq, ts, *(base64.b64decode(part) for part in rest)) for seq, ts, *rest in server["messages"]
    ]
    assert found.deleted, "limits leave rows behind that only the index knows to be gone"
    assert found.created
    for name, expected in server["consumers"].items():
        state = found.consumers[name].state
        assert state.delivered == tuple(expected["delivered"][key] for key in ("consumer_seq", "stream_seq"))
        assert state.ack_floor == tuple(expected["ack_floor"][key] for key in ("consumer_seq", "stream_seq"))
        assert (len(state.pending), len(state.redelivered)) == (
            expected["num_ack_pending"],
            expected["num_redelivered"],
        )
        assert found.consumers[name].config["durable_name"] == name
        assert not {"Created", "Name"} & set(found.consumers[name].config)


@pytest.mark.parametrize("version", SENDERS)
def test_no_byte_of_a_server_s_tar_can_be_missing(version: str) -> None:
    tar, _ = snapshot(version)
    for end in range(0, len(tar), 64):
        with pytest.raises(BadDataError):
            decode(tar[:end], STREAM)
