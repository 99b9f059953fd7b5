"""The servers' own encoding of a set of sequences (index.db holds one for each block with deleted messages)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from jetkeep.codecs.msgblock.varint import Bytes
from jetkeep.codecs.sequences import MAX_SEQUENCE, SequenceSet

_MAGIC = 22
_HEAD = struct.Struct("<BBII")
#: 64-bit words of a node, by the encoding's version.
_WORDS = {1: 64, 2: 32}
#: A set larger than this would stand for a block of more than 10^9 sequences.
_MAX_BYTES = 256 * 1024 * 1024


def read_server_set(data: Bytes, at: int) -> tuple[SequenceSet, int]:
    """The set at `at` and where it ends.

    Raises:
        IndexError: it is not complete.
        ValueError: it is no set.
    """
    if len(data) - at < _HEAD.size:
        raise IndexError
    magic, version, nodes, size = _HEAD.unpack_from(data, at)
    words = _WORDS.get(version)
    if magic != _MAGIC or words is None:
        raise ValueError(f"a set begins with {magic}, {version}")
    node_bytes = 8 + 8 * words + 2
    if nodes * node_bytes > _MAX_BYTES:
        raise ValueError(f"a set claims {nodes} nodes")
    at += _HEAD.size
    end = at + nodes * node_bytes
    if len(data) < end:
        raise IndexError
    # The servers write the tree from its root down, so the nodes are not in order.
    bases = sorted((struct.unpack_from("<Q", data, start)[0], start) for start in range(at, end, node_bytes))
    found = SequenceSet.from_ranges(
        run
        for base, start in bases
        for run in _runs(int.from_bytes(data[start + 8 : start + 8 + 8 * words], "little"), base)
    )
    if found.count() != size:
        raise ValueError(f"a set claims {size} members and holds {found.count()}")
    return found, end


def _runs(bits: int, base: int) -> Iterator[tuple[int, int]]:
    """The runs of set bits, bit 0 being `base`."""
    while bits:
        zeros = (bits & -bits).bit_length() - 1
        bits >>= zeros
        base += zeros
        ones = (~bits & (bits + 1)).bit_length() - 1
        if base + ones - 1 > MAX_SEQUENCE:
            raise ValueError("a set goes beyond 2^64 - 1")
        yield base, base + ones - 1
        bits >>= ones
        base += ones
