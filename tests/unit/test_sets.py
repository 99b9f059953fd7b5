"""Sets of backups: which streams are whose, what is complete, what is lost."""

from __future__ import annotations

import itertools
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from jetkeep.capture.sharding import Shard, shard_from, shard_of
from jetkeep.catalog import choose_streams, find_backup, find_point
from jetkeep.errors import BadDataError, UsageError
from jetkeep.repository import encoding
from jetkeep.repository.documents import Backup, Selection, ServerFacts, SetPart, Tool
from jetkeep.repository.repository import Repository
from jetkeep.repository.sets import RestorePoint, restore_points
from tests.repositories import BEGAN, Stream, new_repository, orders, take

FORMAT = Path(__file__).parents[2] / "docs" / "format.md"
FOUR = ["prod.0of4", "prod.1of4", "prod.2of4", "prod.3of4"]


def test_streams_are_shared_as_the_format_says() -> None:
    counts = [1, 2, 3, 4, 7, 16]
    rows = re.findall(r"^\| `(\S+)` \|((?: \d+ \|){6})$", FORMAT.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 4
    for stream, numbers in rows:
        assert [shard_of(stream, count) for count in counts] == [int(one) for one in re.findall(r"\d+", numbers)]


@given(st.sets(st.text(min_size=1, max_size=20), max_size=60), st.integers(1, 9))
def test_every_stream_is_exactly_one_shards(streams: set[str], count: int) -> None:
    shares = [Shard(index, count).of(sorted(streams)) for index in range(count)]
    assert sorted(itertools.chain(*shares)) == sorted(streams)


def test_a_thousand_streams_are_shared_evenly() -> None:
    names = [f"stream-{number}" for number in range(1000)]
    assert all(200 < len(Shard(index, 4).of(names)) < 300 for index in range(4))


def test_the_shard_comes_from_the_flag_or_from_kubernetes() -> None:
    assert shard_from("1/4", None, {"JOB_COMPLETION_INDEX": "3"}) == Shard(1, 4)
    assert shard_from(None, 4, {"JOB_COMPLETION_INDEX": "3"}) == Shard(3, 4)
    assert shard_from(None, None, {"JOB_COMPLETION_INDEX": "3"}) is None


@pytest.mark.parametrize(
    ("shard", "shards", "index", "words"),
    [
        ("4/4", None, "", "0/4 to 3/4"),
        ("0/0", None, "", "no shard 0/0"),
        ("-1/4", None, "", "no shard"),
        ("1", None, "", "no shard"),
        ("1/4", 4, "", "already"),
        (None, 4, "", "not set"),
        (None, 4, "x", "'x'"),
        (None, 4, "4", "no shard 4/4"),
    ],
)
def test_a_shard_that_cannot_be_is_refused(shard: str | None, shards: int | None, index: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        shard_from(shard, shards, {"JOB_COMPLETION_INDEX": index} if index else {})
    assert words in f"{caught.value.what} {caught.value.hint}"
    assert caught.value.code == "usage.shard"


def backup(
    label: str, part: str = "", parts: list[str] | None = None, *, hours: int = 0, status: str = "complete"
) -> Backup:
    """A backup's document, of a set where a part is given."""
    name, _, rest = label.partition(".")
    at = (BEGAN + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Backup(
        repository="0" * 32,
        label=label,
        source=part.partition(".")[0] or "nats",
        started_at=at,
        finished_at=at,
        status="complete" if status == "complete" else "partial",
        tool=Tool(name="jetkeep", version="0"),
        server=ServerFacts(),
        host="here",
        tags=[],
        selection=Selection(include=[], exclude=[], total=0),
        streams=[],
        set=SetPart(label=name, part=part, parts=FOUR if parts is None else parts) if rest else UNSET,
    )


def the_set(*backups: Backup) -> RestorePoint:
    """The one restore point that these backups make."""
    (point,) = restore_points(backups)
    return point


def test_a_set_is_complete_when_every_part_is() -> None:
    members = [backup(f"S.{part}", part, hours=at) for at, part in enumerate(FOUR)]
    point = the_set(*reversed(members))
    assert (point.label, point.status, point.lost) == ("S", "complete", ())
    assert [one.label for one in point.backups] == [f"S.{part}" for part in FOUR]
    assert point.started == BEGAN
    for missing in members:
        point = the_set(*(one for one in members if one is not missing))
        assert (point.status, point.lost) == ("incomplete", (missing.set and missing.set.part,))


def test_a_part_that_ran_again_counts_once_and_the_complete_run_counts() -> None:
    both = ["a", "b"]
    first = backup("S.a", "a", both, status="partial")
    again = backup("S.a-2", "a", both, hours=1)
    other = backup("S.b", "b", both)
    assert the_set(first, other).status == "partial"
    point = the_set(first, other, again)
    assert (point.status, [one.label for one in point.backups]) == ("complete", ["S.a-2", "S.b"])
    assert [one.label for one in point.superseded] == ["S.a"]
    # A later run that failed does not hide one that was whole.
    worse = backup("S.a-3", "a", both, hours=2, status="partial")
    assert [one.label for one in the_set(first, other, again, worse).backups] == ["S.a-2", "S.b"]


def test_parts_that_disagree_about_the_set_never_make_it_complete() -> None:
    two, three = ["p.0of2", "p.1of2"], ["p.0of3", "p.1of3", "p.2of3"]
    point = the_set(
        backup("S.p.0of2", two[0], two), backup("S.p.1of2", two[1], two), backup("S.p.0of3", three[0], three)
    )
    assert point.lost == ("p.1of3", "p.2of3")


def test_one_source_of_a_set_stands_for_itself() -> None:
    parts = ["a", "b.0of2", "b.1of2"]
    point = the_set(backup("S.a", "a", parts), backup("S.b.0of2", "b.0of2", parts))
    assert not point.complete
    one = point.of("a")
    assert one
    assert one.complete
    other = point.of("b")
    assert other
    assert other.lost == ("b.1of2",)
    assert point.of("c") is None


def test_backups_and_sets_come_in_the_order_in_which_they_began() -> None:
    points = restore_points(
        [
            backup("old", hours=0),
            backup("S.a", "a", ["a", "b"], hours=3),
            backup("S.b", "b", ["a", "b"], hours=1),
            backup("new", hours=2),
        ]
    )
    assert [point.label for point in points] == ["old", "S", "new"]


@pytest.mark.parametrize(
    "changes",
    [
        {"set": {"label": "S", "part": "nats.2of2", "parts": ["nats.0of2", "nats.1of2"]}},
        {"set": {"label": "S", "part": "other", "parts": ["other"]}},
        {"set": {"label": "S", "part": "nats", "parts": ["nats"], "more": 1}},
        {"set": {"label": "S", "part": "nats"}},
        {"set": None},
        {"files": {"status": "complete", "count": 1}},
        {"files": {"status": "failed", "error": {"code": "x", "what": "x"}}},
        {"files": None},
    ],
)
def test_a_backup_that_contradicts_itself_about_its_set_or_files_is_refused(changes: dict[str, Any]) -> None:
    body = {**msgspec.to_builtins(backup("whole")), "set": {"label": "S", "part": "nats", "parts": ["nats"]}}
    encoding.unseal(encoding.seal(body), "key", Backup)
    with pytest.raises(BadDataError):
        encoding.unseal(encoding.seal({**body, **changes}), "key", Backup)


ROWS = orders(1, 4)


async def take_set(
    repository: Repository, label: str, parts: dict[str, list[str]], *, hours: int = 0, lost: tuple[str, ...] = ()
) -> None:
    """Commit the parts of a set with these streams, but not those that are lost."""
    for at, (part, streams) in enumerate(parts.items()):
        if part not in lost:
            began = BEGAN + timedelta(hours=hours, minutes=at)
            mark = SetPart(label=label, part=part, parts=sorted(parts))
            held = {name: Stream([ROWS]) for name in streams}
            await take(repository, f"{label}.{part}", held, started=began, source=part.partition(".")[0], set=mark)


SHARDS = {"prod.0of2": ["A", "B"], "prod.1of2": ["C"]}
ACCOUNTS = {"east": ["A", "B"], "west": ["A", "C"]}


async def names(
    repository: Repository, label: str | None, streams: tuple[str, ...] = (), source: str | None = None
) -> list[str]:
    """What a restore would take: label of the point, then source and name of each stream."""
    point = await find_point(repository, label, streams, source)
    chosen = await choose_streams(repository, point, streams)
    return [point.label, *(f"{one.backup.source}/{one.entry.name}" for one in chosen)]


async def test_the_newest_complete_set_is_taken_with_all_its_parts(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    await take(repository, "alone", {"A": Stream([ROWS])}, source="prod")
    await take_set(repository, "S1", SHARDS, hours=1)
    await take_set(repository, "S2", SHARDS, hours=2, lost=("prod.1of2",))
    assert await names(repository, None) == ["S1", "prod/A", "prod/B", "prod/C"]
    assert await names(repository, "S?") == ["S1", "prod/A", "prod/B", "prod/C"]
    assert await names(repository, "S1") == ["S1", "prod/A", "prod/B", "prod/C"]
    assert await names(repository, "S1.prod.1of2") == ["S1.prod.1of2", "prod/C"]
    assert await names(repository, None, ("C",)) == ["S1", "prod/C"]
    assert await names(repository, None, ("*",)) == ["S1", "prod/A", "prod/B", "prod/C"]


async def test_a_set_that_lacks_a_part_is_not_taken_for_a_whole(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    await take_set(repository, "S2", SHARDS, lost=("prod.1of2",))
    for label, streams in (("S2", ()), (None, ()), ("S*", ()), ("S2", ("*",)), (None, ("[A-C]",)), ("S2", ("A", "C"))):
        with pytest.raises(UsageError, match=r"prod\.1of2"):
            await names(repository, label, streams)
    # What is named and there can be had.
    assert await names(repository, "S2", ("A",)) == ["S2", "prod/A"]
    assert await names(repository, None, ("B",)) == ["S2", "prod/B"]
    assert (await find_point(repository, "S2", lacking=True)).lost == ("prod.1of2",)


async def test_a_name_that_two_sources_have_needs_the_source(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    await take_set(repository, "S", ACCOUNTS)
    for streams in ((), ("A",)):
        with pytest.raises(UsageError, match="several sources: east, west") as caught:
            await names(repository, None, streams)
        assert "--source" in caught.value.hint
    assert await names(repository, None, ("C",)) == ["S", "west/C"]
    assert await names(repository, "S", ("A",), "west") == ["S", "west/A"]
    assert (await find_backup(repository, None, ["A"], "east")).label == "S.east"
    assert (await find_backup(repository, None, ["B"])).label == "S.east"
    with pytest.raises(UsageError, match="several sources"):
        await find_backup(repository, None, ["A"])
    with pytest.raises(UsageError, match="set of 2 parts"):
        await find_backup(repository, "S")


async def test_where_an_account_is_lost_the_other_can_be_had_by_its_name_only(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    await take_set(repository, "S", ACCOUNTS, lost=("west",))
    with pytest.raises(UsageError, match="not complete: west"):
        await names(repository, None, ("A",))  # the lost one may have an A of its own
    assert await names(repository, None, (), "east") == ["S", "east/A", "east/B"]
    with pytest.raises(UsageError):
        await names(repository, "S", (), "west")


async def test_an_older_set_is_not_the_latest_while_a_part_of_a_newer_one_is_damaged(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    await take_set(repository, "20240110-131500", SHARDS)
    await take_set(repository, "20240110-141500", SHARDS, hours=1)
    (tmp_path / "backups" / "20240110-141500.prod.0of2.json").write_bytes(b"x")
    with pytest.raises(BadDataError, match="may be newer"):
        await names(repository, None)
    assert (await names(repository, "20240110-131500"))[0] == "20240110-131500"
    with pytest.raises(UsageError, match="not complete"):
        await names(repository, "20240110-141500")
