"""Variable-length integers as Go's encoding/binary writes them. Reading past the end raises IndexError."""

from __future__ import annotations

Bytes = bytes | bytearray | memoryview

_MASK = (1 << 64) - 1


def read_uvarint(data: Bytes, at: int) -> tuple[int, int]:
    """The unsigned integer at `at` and where it ends; ValueError where it is longer than 64 bits."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > _MASK:
                raise ValueError("an integer is longer than 64 bits")
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("an integer is longer than 64 bits")


def read_varint(data: Bytes, at: int) -> tuple[int, int]:
    """The signed integer at `at` and where it ends."""
    value, at = read_uvarint(data, at)
    return (value >> 1) ^ -(value & 1), at


def put_uvarint(out: bytearray, value: int) -> None:
    """Appends `value`, taken modulo 2^64."""
    value &= _MASK
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def put_varint(out: bytearray, value: int) -> None:
    """Appends a signed integer of 64 bits."""
    put_uvarint(out, value << 1 ^ value >> 63)
