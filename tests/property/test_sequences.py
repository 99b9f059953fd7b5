"""Sequence sets behave as sets, and their text form is exact and strict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetkeep.codecs.sequences import MAX_SEQUENCE, SequenceSet
from jetkeep.errors import BadDataError

near = st.sets(st.integers(0, 80), max_size=40)
far = st.sets(st.integers(0, MAX_SEQUENCE), max_size=10)


def members(one: SequenceSet) -> set[int]:
    return {seq for first, last in one.ranges() for seq in range(first, last + 1)}


@given(near, near)
def test_union_intersection_and_difference_are_those_of_sets(left: set[int], right: set[int]) -> None:
    one, two = SequenceSet.of(left), SequenceSet.of(right)
    assert members(one | two) == left | right
    assert members(one & two) == left & right
    assert members(one - two) == left - right
    assert one.count() == len(left)
    assert all(seq in one for seq in left)
    assert one.intersects(10, 20) == bool(left & set(range(10, 21)))


@given(st.one_of(near, far))
def test_the_text_form_round_trips(values: set[int]) -> None:
    one = SequenceSet.of(values)
    assert SequenceSet.decode(one.encode()) == one


@given(st.text(alphabet="ABCDEFGHIJabcdefghij0123456789-_=+ é", max_size=30))
def test_any_text_is_decoded_exactly_or_refused(text: str) -> None:
    try:
        one = SequenceSet.decode(text)
    except BadDataError:
        return
    assert one.encode() == text


@pytest.mark.parametrize(
    ("ranges", "text"),
    [([], ""), ([(1, 1)], "AQA"), ([(1, 3), (7, 7)], "AQICAA"), ([(5, 50_000_004)], "Bf_g6xc")],
)
def test_the_examples_of_the_format_page(ranges: list[tuple[int, int]], text: str) -> None:
    assert SequenceSet.from_ranges(ranges).encode() == text


def test_a_set_of_fifty_million_costs_one_range() -> None:
    wide = SequenceSet.from_ranges([(1, 50_000_000)])
    assert wide.range_count == 1
    assert wide.count() == 50_000_000
