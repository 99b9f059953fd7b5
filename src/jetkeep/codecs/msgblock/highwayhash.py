"""HighwayHash-64 under the servers' keys: the key is the SHA-256 of a text that names what is hashed."""

from __future__ import annotations

import hashlib
import struct
from array import array
from typing import Any

from jetkeep.codecs.kernels import _blocks

_MUL0 = (0xDBE6D5D5FE4CCE2F, 0xA4093822299F31D0, 0x13198A2E03707344, 0x243F6A8885A308D3)
_MUL1 = (0x3BD39E10CB0EF593, 0xC0ACF169B5F18A8C, 0xBE5466CF34E90C6C, 0x452821E638D01377)
_PACKET = 32
#: A hash's 16 words, a buffer of uint64. Its type is the kernels', which mypy cannot know.
State = Any


def initial_state(key: bytes) -> State:
    """The hash's state (16 words) before any data, for a key of 32 bytes."""
    words = struct.unpack("<4Q", key)
    v0 = (mul ^ word for mul, word in zip(_MUL0, words, strict=True))
    v1 = (mul ^ ((word >> 32) | (word << 32 & 0xFFFFFFFF00000000)) for mul, word in zip(_MUL1, words, strict=True))
    return memoryview(array("Q", [*v0, *v1, *_MUL0, *_MUL1]))


def keyed_state(text: str) -> State:
    """The initial state under the key that the servers derive from `text`."""
    return initial_state(hashlib.sha256(text.encode()).digest())


class HighwayHash64:
    """An incremental hash; `digest` is the servers' 8 bytes (little endian) and may be asked for at any time."""

    def __init__(self, state: State) -> None:
        self._state: State = memoryview(array("Q", state))
        self._rest = b""

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take more data in."""
        data = memoryview(data)
        if self._rest:
            need = min(_PACKET - len(self._rest), len(data))
            self._rest += bytes(data[:need])
            data = data[need:]
            if len(self._rest) < _PACKET:
                return
            _blocks.absorb(self._state, memoryview(self._rest), _PACKET)
        whole = len(data) - len(data) % _PACKET
        _blocks.absorb(self._state, data, whole)
        self._rest = bytes(data[whole:])

    def digest(self) -> bytes:
        """The hash of all data so far."""
        return digest(self._state, self._rest)


def digest(state: State, data: bytes) -> bytes:
    """The hash of `data` as the servers store it: 8 bytes, little endian."""
    return _blocks.finish(state, memoryview(data), len(data)).to_bytes(8, "little")


def keyed_digest(text: str, data: bytes) -> bytes:
    """The servers' hash of `data` under the key text `text`."""
    return digest(keyed_state(text), data)
