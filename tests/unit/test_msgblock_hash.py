from __future__ import annotations

import random

import pytest

from jetkeep.codecs.kernels import _blocks
from jetkeep.codecs.msgblock.highwayhash import HighwayHash64, digest, initial_state, keyed_digest
from tests.kernel_sources import interpreted

KEY = bytes(range(32))


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0x907A56DE22C26E53), (b"\0", 0x7EAB43AAC7CDDD78), (b"\0\1", 0xB8D0569AB0B53D62)],
)
def test_highwayhash_gives_the_published_answers(data: bytes, expected: int) -> None:
    assert digest(initial_state(KEY), data) == expected.to_bytes(8, "little")
    slow = interpreted("_blocks")
    assert slow.finish(initial_state(KEY), memoryview(data), len(data)) == expected


def test_highwayhash_is_the_same_interpreted_for_every_length() -> None:
    source, slow = random.Random(1), interpreted("_blocks")
    for size in range(200):
        data = memoryview(source.randbytes(size))
        state = initial_state(source.randbytes(32))
        assert _blocks.finish(state, data, size) == slow.finish(state, data, size), size


def test_highwayhash_in_pieces_is_the_hash_of_the_whole() -> None:
    source = random.Random(2)
    for _ in range(200):
        data = source.randbytes(source.randrange(300))
        state = initial_state(KEY)
        hasher = HighwayHash64(state)
        at = 0
        while at < len(data):
            size = source.choice((1, 7, 31, 32, 33, 100))
            hasher.update(data[at : at + size])
            at += size
        assert hasher.digest() == hasher.digest() == digest(state, data)


def test_the_key_is_the_sha256_of_a_text() -> None:
    assert keyed_digest("A", b"x") != keyed_digest("B", b"x")
    assert len(keyed_digest("A", b"x").hex()) == 16
