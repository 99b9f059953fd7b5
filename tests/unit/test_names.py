"""Keys of objects: what docs/format.md says of names, labels, timelines and their places."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jetkeep.errors import BadDataError, UsageError
from jetkeep.repository import layout
from jetkeep.repository.address import store_at
from jetkeep.repository.names import check_label, check_source, escape

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
DIGEST = "0123456789abcdef" * 4


def examples_of_the_page() -> list[tuple[str, str]]:
    table = PAGE.split("| stream | escaped |")[1].split("\n\n")[0]
    return re.findall(r"^\| `([^`]+)`[^|]*\| `([^`]+)` \|$", table, re.MULTILINE)


def test_names_are_escaped_as_the_page_shows() -> None:
    examples = examples_of_the_page()
    assert len(examples) >= 6
    for stream, escaped in examples:
        assert escape(stream) == escaped


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("a" * 200, "a" * 200),
        ("a" * 201, "a" * 160),
        ("ö" * 33, "=C3=B6" * 33),
        ("ö" * 34, "=C3=B6" * 26 + "=C3"),  # bytes are escaped, so a cut may part those of a letter
        ("a" * 159 + "ö" * 30, "a" * 159),
    ],
)
def test_long_names_are_cut_and_never_inside_an_escape(name: str, kept: str) -> None:
    head, _, digest = escape(name).partition("==")
    assert head == kept
    if digest:
        assert re.fullmatch("[0-9a-f]{32}", digest)
        assert escape(name + "x").partition("==")[2] != digest


@pytest.mark.parametrize("label", ["a", "0", "20261123-131500", "20261123-131500-2", "v1.2_x", "a" * 64])
def test_labels(label: str) -> None:
    assert check_label(label) == label
    assert layout.label_of(layout.backup_key(label)) == label
    assert layout.label_of(layout.pin_key(label)) == label
    assert layout.check_key(layout.backup_key(label))


@pytest.mark.parametrize("label", ["", ".", "..", "-a", "_a", "a/b", "a b", "ä", "a" * 65, "a\n", "*", "a\x00"])
def test_what_cannot_be_a_label(label: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_label(label)
    assert refused.value.code == "usage.label"


@pytest.mark.parametrize("source", ["", ".", "a.b", "a/b", "a b", "ä", "a" * 65, "a\n"])
def test_what_cannot_be_a_source(source: str) -> None:
    assert check_source("prod_EU-1") == "prod_EU-1"
    with pytest.raises(UsageError) as refused:
        check_source(source)
    assert refused.value.code == "usage.source"


@pytest.mark.parametrize(
    ("created_at", "life", "timeline"),
    [
        ("2026-11-23T13:15:00.123456789Z", 1, "20261123T131500-123456789"),
        ("2026-11-23T13:15:00.1Z", 1, "20261123T131500-100000000"),
        ("2026-11-23T13:15:00Z", 2, "20261123T131500-000000000-r2"),
        ("2026-11-23T15:15:00.000000001+02:00", 10, "20261123T131500-000000001-r10"),
        ("2026-12-31T23:30:00-01:00", 1, "20270101T003000-000000000"),
        ("0001-01-01T00:00:00Z", 1, "00010101T000000-000000000"),
    ],
)
def test_timelines_are_named_after_the_creation_in_utc(created_at: str, life: int, timeline: str) -> None:
    assert layout.timeline_of(created_at, life) == timeline


@pytest.mark.parametrize(
    "created_at",
    ["", "now", "2026-11-23", "2026-11-23T13:15:00", "2026-02-30T00:00:00Z", "2026-11-23T13:15:00.1234567890Z",
     "0001-01-01T00:00:00+02:00", "2026-11-23T13:15:00Z\n", "../../x"],
)  # fmt: skip
def test_what_is_no_creation_time(created_at: str) -> None:
    with pytest.raises(BadDataError) as refused:
        layout.timeline_of(created_at, 1)
    assert refused.value.code == "data.created"


def test_objects_lie_where_the_page_says() -> None:
    prefix = layout.timeline_prefix("prod", "a b", "20261123T131500-123456789-r2")
    assert prefix == "sources/prod/a=20b/20261123T131500-123456789-r2/"
    segment = layout.segment_key(prefix, 7, 12, DIGEST)
    manifest = layout.manifest_key(prefix, "monday", DIGEST)
    assert segment == f"{prefix}segments/{7:020d}-{12:020d}-0123456789abcdef.parquet"
    assert manifest == f"{prefix}manifests/monday-0123456789abcdef.json.zst"
    assert layout.segment_key(prefix, 7, 12, DIGEST, 2).endswith("-0123456789abcdef-2.parquet")
    assert layout.manifest_key(prefix, "monday", DIGEST, 3).endswith("-0123456789abcdef-3.json.zst")
    for copy in (1, 2, 99):
        assert layout.kind_of(layout.segment_key(prefix, 0, 2**64 - 1, DIGEST, copy)) == "segment"
        assert layout.kind_of(layout.manifest_key(prefix, "a" * 64, DIGEST, copy)) == "manifest"


def test_segments_sort_as_their_sequences() -> None:
    ends = [(1, 9), (10, 99), (100, 10**18), (10**18 + 1, 2**64 - 1)]
    keys = [layout.segment_key("p/", first, last, DIGEST) for first, last in ends]
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    "key",
    [
        "notes.txt",
        "sources/notes.txt",
        "sources/prod/A/20261123T131500-123456789/segments/notes.txt",
        "sources/prod/A/x/segments/00000000000000000001-00000000000000000002-0123456789abcdef.parquet",
        "sources/prod/A/20261123T131500-123456789/segments/1-2-0123456789abcdef.parquet",
        "sources/prod/A/20261123T131500-123456789/manifests/m-0123456789abcdef.json",
        "x/sources/prod/A/20261123T131500-123456789/manifests/m-0123456789abcdef.json.zst",
        "backups/monday.json",
    ],
)
def test_other_names_are_no_segments_and_no_manifests(key: str) -> None:
    assert layout.kind_of(key) is None


@pytest.mark.parametrize(
    "key", ["backups/a/b.json", "backups/.json", "backups/a.json.partial", "evidence/a.json", "a.json"]
)
def test_other_names_have_no_label(key: str) -> None:
    assert layout.label_of(key) is None


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/backups", "/backups"),
        ("file:///backups", "/backups"),
        ("file:///with%20space", "/with space"),
        ("/with%20percent", "/with%20percent"),
        ("/a:b", "/a:b"),
    ],
)
def test_addresses_of_repositories(address: str, path: str) -> None:
    assert store_at(address).url == path


@pytest.mark.parametrize("address", ["s3://", "s3://bucket/a//b", "gs:///x", "file://backups", "http://x/y"])
def test_addresses_that_are_not_supported_are_refused_and_not_taken_for_paths(address: str) -> None:
    with pytest.raises(UsageError) as refused:
        store_at(address)
    assert refused.value.code == "usage.repo-scheme"
