"""Sets of sequences as rising ranges, and their text form (docs/format.md, *Sequence sets*)."""

from __future__ import annotations

import base64
import binascii
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from jetkeep.errors import BadDataError

MAX_SEQUENCE = 2**64 - 1


class SequenceSet:
    """An immutable set of uint64 sequences, held as disjoint, not adjacent ranges in rising order.

    Size in memory: 16 bytes a range, however wide the ranges are.
    """

    __slots__ = ("_firsts", "_lasts")

    def __init__(self) -> None:
        self._firsts, self._lasts = array("Q"), array("Q")

    @classmethod
    def of(cls, sequences: Iterable[int]) -> SequenceSet:
        """The set of these sequences, in any order."""
        return cls.from_ranges((one, one) for one in sorted(sequences))

    @classmethod
    def from_ranges(cls, ranges: Iterable[tuple[int, int]]) -> SequenceSet:
        """The union of ranges (first, last) that come in rising order of `first`; they may touch or overlap."""
        made = cls()
        firsts, lasts = made._firsts, made._lasts
        for first, last in ranges:
            if last < first:
                continue
            if lasts and first <= lasts[-1] + 1:
                lasts[-1] = max(lasts[-1], last)
            else:
                firsts.append(first)
                lasts.append(last)
        return made

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The ranges (first, last), rising."""
        return zip(self._firsts, self._lasts, strict=True)

    @property
    def range_count(self) -> int:
        """How many ranges there are."""
        return len(self._firsts)

    def count(self) -> int:
        """How many sequences there are (may exceed what `len` can say)."""
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    def __len__(self) -> int:
        return self.count()

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def __contains__(self, seq: int) -> bool:
        at = bisect_right(self._firsts, seq) - 1
        return at >= 0 and seq <= self._lasts[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SequenceSet) and self._firsts == other._firsts and self._lasts == other._lasts

    def __hash__(self) -> int:
        return hash((self._firsts.tobytes(), self._lasts.tobytes()))

    def __repr__(self) -> str:
        return f"<SequenceSet of {self.count()} in {self.range_count} ranges>"

    def intersects(self, first: int, last: int) -> bool:
        """Some sequence from `first` to `last` is in the set."""
        at = bisect_left(self._lasts, first)
        return at < len(self._firsts) and self._firsts[at] <= last

    def within(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The ranges between `first` and `last`, cut there."""
        for at in range(bisect_left(self._lasts, first), bisect_right(self._firsts, last)):
            yield max(first, self._firsts[at]), min(last, self._lasts[at])

    def count_within(self, first: int, last: int) -> int:
        """How many sequences from `first` to `last` are in the set."""
        return sum(high - low + 1 for low, high in self.within(first, last))

    def __or__(self, other: SequenceSet) -> SequenceSet:
        if not other:
            return self
        if not self:
            return other
        return SequenceSet.from_ranges(sorted([*self.ranges(), *other.ranges()]))

    def __and__(self, other: SequenceSet) -> SequenceSet:
        return SequenceSet.from_ranges(_common(list(self.ranges()), list(other.ranges())))

    def __sub__(self, other: SequenceSet) -> SequenceSet:
        if not other or not self:
            return self
        return SequenceSet.from_ranges(_minus(list(self.ranges()), list(other.ranges())))

    def encode(self) -> str:
        """The text form: base64url of LEB128 pairs."""
        out = bytearray()
        previous: int | None = None
        for first, last in self.ranges():
            _leb128(out, first if previous is None else first - previous - 2)
            _leb128(out, last - first)
            previous = last
        return base64.urlsafe_b64encode(bytes(out)).rstrip(b"=").decode("ascii")

    @classmethod
    def decode(cls, text: str) -> SequenceSet:
        """Read the text form.

        Raises:
            BadDataError: it is malformed.
        """
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as wrong:
            raise _malformed(str(wrong)) from None
        if base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii") != text:
            raise _malformed("it is not in its shortest form")
        made = cls()
        previous: int | None = None
        numbers = _integers(data)
        for distance in numbers:
            length = next(numbers, None)
            if length is None:
                raise _malformed("a range has no length")
            first = distance if previous is None else previous + 2 + distance
            previous = first + length
            if previous > MAX_SEQUENCE:
                raise _malformed("a sequence is above 2^64 - 1")
            made._firsts.append(first)
            made._lasts.append(previous)
        return made


def _common(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    at = to = 0
    while at < len(left) and to < len(right):
        first, last = max(left[at][0], right[to][0]), min(left[at][1], right[to][1])
        if first <= last:
            yield first, last
        if left[at][1] < right[to][1]:
            at += 1
        else:
            to += 1


def _minus(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    to = 0
    for whole_first, last in left:
        first = whole_first
        while to < len(right) and right[to][1] < first:
            to += 1
        at = to
        while at < len(right) and right[at][0] <= last:
            if right[at][0] > first:
                yield first, right[at][0] - 1
            first = right[at][1] + 1
            at += 1
        if first <= last:
            yield first, last


def _leb128(out: bytearray, value: int) -> None:
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def _integers(data: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        if shift > 63:
            raise _malformed("an integer is longer than 64 bits")
        value |= (byte & 127) << shift
        if byte & 128:
            shift += 7
            continue
        if shift and not byte:
            raise _malformed("an integer is not in its shortest form")
        yield value
        value = shift = 0
    if shift:
        raise _malformed("the last integer is cut")


def _malformed(why: str) -> BadDataError:
    return BadDataError(
        f"a sequence set is malformed: {why}",
        code="data.sequence-set",
        means="the document that holds it cannot be used",
        hint="run `jetkeep verify`",
    )
