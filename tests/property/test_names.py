from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from jetkeep.repository import layout
from jetkeep.repository.names import escape

ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=90)
#: Names that are long once escaped, and differ late.
LONG = st.builds(lambda head, tail: "ö" * head + tail, st.integers(20, 90), st.text("aö=", max_size=60))
NAMES = ANY | LONG


@given(NAMES, NAMES)
def test_two_names_have_one_key_only_when_they_are_one(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)


@given(NAMES)
def test_a_name_becomes_harmless_characters(name: str) -> None:
    escaped = escape(name)
    assert re.fullmatch(r"[A-Za-z0-9_=-]*", escaped)
    assert len(escaped) <= 194 or (len(escaped) <= 200 and "==" not in escaped)
    head = escaped.partition("==")[0]
    assert re.fullmatch(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})*", head)


@given(NAMES)
def test_a_short_name_can_be_read_back(name: str) -> None:
    escaped = escape(name)
    if "==" not in escaped:
        raw = re.sub(rb"=([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), escaped.encode())
        assert raw.decode() == name


@given(
    st.text("aZ0_-", min_size=1, max_size=64),
    NAMES.filter(bool),
    st.integers(1, 2**32),
    st.text("aZ9._-", max_size=63).map("x".__add__),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(1, 99),
)
def test_every_key_is_one_and_tells_what_lies_there(
    source: str, stream: str, life: int, label: str, first: int, last: int, copy: int
) -> None:
    prefix = layout.timeline_prefix(source, stream, layout.timeline_of("2026-11-23T13:15:00.5Z", life))
    segment = layout.segment_key(prefix, first, last, "ab" * 32, copy)
    manifest = layout.manifest_key(prefix, label, "ab" * 32, copy)
    assert layout.check_key(segment) == segment
    assert layout.check_key(manifest) == manifest
    assert (layout.kind_of(segment), layout.kind_of(manifest)) == ("segment", "manifest")
