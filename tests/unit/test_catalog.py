"""Which backup is meant, and what of it is live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from jetkeep import catalog
from jetkeep.catalog import choose_streams, find_backup, live_batches, live_rows, not_live, reading
from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.fingerprint import Fingerprint
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.errors import BadDataError, JetkeepError, NoRepositoryError, UsageError
from jetkeep.repository.documents import Gap, Manifest
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from tests.repositories import BEGAN, TIMELINE, Stream, manifest_of, new_repository, orders, put_run, some_streams, take

ROWS = orders(1, 4)


async def several(root: Path) -> Repository:
    """Backups of three hours: the second is partial, the third is of another source and selection."""
    repository = await new_repository(root)
    one, two = {"A": Stream([ROWS]), "B": Stream([ROWS])}, {"A": Stream([ROWS])}
    await take(repository, "20240110-130000", one, started=BEGAN)
    await take(repository, "20240110-140000", two, started=BEGAN + timedelta(hours=1), failed=["B"])
    await take(repository, "20240110-150000", two, started=BEGAN + timedelta(hours=2), source="other")
    return repository


@pytest.mark.parametrize(
    ("label", "streams", "source", "found"),
    [
        (None, [], None, "20240110-150000"),
        ("latest", [], "nats", "20240110-130000"),  # complete before partial, though older
        (None, ["A"], "nats", "20240110-140000"),  # partial, but with all that was asked for
        (None, ["A", "B"], None, "20240110-130000"),
        (None, ["*"], "nats", "20240110-140000"),
        ("20240110-140000", [], None, "20240110-140000"),
        ("*-13*", [], None, "20240110-130000"),
        ("*-14*", [], "nats", "20240110-140000"),  # nothing complete fits: the newest partial one
    ],
)
async def test_which_backup_is_meant(
    tmp_path: Path, label: str | None, streams: list[str], source: str | None, found: str
) -> None:
    assert (await find_backup(await several(tmp_path), label, streams, source)).label == found


@pytest.mark.parametrize(
    ("label", "streams", "source", "code"),
    [
        ("absent", [], None, "usage.no-such-backup"),
        ("../x", [], None, "usage.label"),
        ("absent*", [], None, "usage.no-such-backup"),
        (None, [], "nobody", "repository.empty"),
        (None, ["C"], None, "usage.no-such-stream"),
        (None, ["B"], "other", "usage.no-such-stream"),
    ],
)
async def test_what_is_asked_for_and_not_there_is_told(
    tmp_path: Path, label: str | None, streams: list[str], source: str | None, code: str
) -> None:
    with pytest.raises((UsageError, NoRepositoryError)) as caught:
        await find_backup(await several(tmp_path), label, streams, source)
    assert caught.value.code == code
    assert caught.value.hint


async def test_an_older_backup_is_not_called_the_latest_while_a_newer_one_is_damaged(tmp_path: Path) -> None:
    repository = await several(tmp_path)
    newest = tmp_path / "backups" / "20240110-150000.json"
    newest.write_bytes(b"x")
    with pytest.raises(BadDataError, match="may be newer") as caught:
        await find_backup(repository, None)
    assert "--backup 20240110-130000" in caught.value.hint
    assert (await find_backup(repository, "20240110-13*")).label == "20240110-130000"
    # One that is older by its label is no matter.
    newest.rename(tmp_path / "backups" / "20240110-120000.json")
    assert (await find_backup(repository, None)).label == "20240110-130000"
    # One whose label tells nothing may be.
    (tmp_path / "backups" / "20240110-120000.json").rename(tmp_path / "backups" / "0-release.json")
    with pytest.raises(BadDataError):
        await find_backup(repository, None)


async def test_where_every_backup_is_damaged_that_is_the_error(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    await take(repository, "only", {"A": Stream([ROWS])})
    (tmp_path / "backups" / "only.json").write_bytes(b"")
    with pytest.raises(BadDataError):
        await find_backup(repository, None)


async def test_streams_are_chosen_by_name_and_glob_and_without_the_excluded(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    streams = {name: Stream([ROWS]) for name in ("KV_a", "KV_b", "ORDERS")}
    backup = await take(repository, "one", streams, failed=["LOST"])
    for wanted, exclude, expected in (
        ([], [], ["KV_a", "KV_b", "ORDERS"]),
        (["KV_*"], [], ["KV_a", "KV_b"]),
        (["ORDERS", "KV_a"], ["KV_*"], ["ORDERS"]),
    ):
        chosen = await choose_streams(repository, backup, wanted, exclude)
        assert [one.entry.name for one in chosen] == expected
    with pytest.raises(UsageError, match="LOST"):
        await choose_streams(repository, backup, ["LOST"])


async def test_a_backup_that_went_before_its_lease_was_there_is_not_read(tmp_path: Path) -> None:
    repository = await several(tmp_path)
    backup = await find_backup(repository, None)
    (tmp_path / "backups" / f"{backup.label}.json").unlink()
    with pytest.raises(UsageError):
        async with reading(repository, backup, now_ns=time.time_ns):
            pytest.fail("it was not there")


@pytest.mark.parametrize("name", some_streams())
@pytest.mark.parametrize(
    ("first", "last"), [(None, None), (1, 3), (4, 8), (6, 7), (7, None), (None, 6), (100, 200), (0, 0)]
)
async def test_what_is_live_between_two_sequences(
    tmp_path: Path, name: str, first: int | None, last: int | None
) -> None:
    stream = some_streams()[name]
    repository = await new_repository(tmp_path)
    backup = await take(repository, "one", {name: stream})
    (chosen,) = await choose_streams(repository, backup)
    found = [row async for batch in live_batches(repository, chosen.manifest, first, last) for row in batch]
    low, high = 0 if first is None else first, 2**64 if last is None else last
    assert found == [row for row in stream.live() if low <= row.seq <= high]


async def test_rows_outside_of_the_streams_bounds_are_not_live(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    wide = await put_run(repository, "nats", "A", TIMELINE, orders(1, 9))
    manifest = manifest_of("nats", "one", "A", Stream([orders(3, 6)]), [wide])
    found = [row async for batch in live_batches(repository, manifest) for row in batch]
    assert found == orders(3, 6)


async def test_a_consumer_that_stops_early_leaves_nothing_running(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    backup = await take(repository, "one", {"A": Stream([orders(at, at + 9) for at in range(1, 100, 10)])})
    (chosen,) = await choose_streams(repository, backup)
    batches = live_batches(repository, chosen.manifest)
    assert (await anext(batches)).first_seq == 1
    await batches.aclose()  # type: ignore[attr-defined]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(("far", "room", "ahead"), [(False, 10**9, 1), (True, 10**9, 4), (True, 0, 1)])
async def test_segments_are_read_ahead_but_not_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, far: bool, room: int, ahead: int
) -> None:
    monkeypatch.setattr(catalog, "READ_AHEAD_BYTES", room)
    repository = await new_repository(tmp_path)
    backup = await take(repository, "one", {"A": Stream([orders(at, at + 9) for at in range(1, 100, 10)])})
    (chosen,) = await choose_streams(repository, backup)
    read: list[str] = []

    class Counting(LocalStore):
        @property
        def remote(self) -> bool:
            return far

        async def read(self, key: str, max_bytes: int) -> bytes:
            read.append(key)
            return await super().read(key, max_bytes)

    batches = live_batches(Repository(Counting(tmp_path), repository.document), chosen.manifest)
    await anext(batches)
    await asyncio.sleep(0.05)
    assert len(read) == 1 + ahead
    await batches.aclose()  # type: ignore[attr-defined]


def bad_counts(manifest: Manifest) -> None:
    manifest.messages -= 1
    manifest.deleted = SequenceSet.of([12]).encode()


def other_fingerprint(manifest: Manifest) -> None:
    manifest.fingerprint = Fingerprint().hex()


def wrong_rows(manifest: Manifest) -> None:
    manifest.segments[0] = msgspec.structs.replace(manifest.segments[0], count=5)


def wrong_range(manifest: Manifest) -> None:
    manifest.segments[0] = msgspec.structs.replace(manifest.segments[0], first_seq=2)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (bad_counts, "data.fingerprint"),
        (other_fingerprint, "data.fingerprint"),
        (wrong_rows, "data.count"),
        (wrong_range, "data.order"),
    ],
)
async def test_rows_that_are_not_what_the_manifest_says_are_refused_before_the_end(
    tmp_path: Path, change: Callable[[Manifest], None], code: str
) -> None:
    repository = await new_repository(tmp_path)
    backup = await take(repository, "one", {"ORDERS": some_streams()["ORDERS"]})
    (chosen,) = await choose_streams(repository, backup)
    change(chosen.manifest)
    with pytest.raises(JetkeepError) as caught:
        async for _ in live_batches(repository, chosen.manifest):
            pass
    assert caught.value.code == code


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": 11},
        {"first_seq": 0},
        {"last_seq": 13},
        {"first_seq": 14},
        {"deleted": SequenceSet.of([3]).encode()},
        {"deleted": SequenceSet.of([3]).encode(), "messages": 11, "gaps": [Gap(set=SequenceSet.of([3]).encode(), reason="")], "last_seq": 13},
        {"deleted": SequenceSet.of([40]).encode(), "messages": 11},
        {"deleted": SequenceSet.of([0]).encode(), "messages": 11},
    ],
)  # fmt: skip
def test_a_manifest_that_does_not_account_for_every_sequence_once_is_refused(changes: dict[str, object]) -> None:
    manifest = manifest_of("nats", "one", "A", Stream([orders(1, 12)]), [])
    assert not not_live(manifest)
    with pytest.raises(BadDataError) as caught:
        not_live(msgspec.structs.replace(manifest, **changes))
    assert caught.value.code == "data.coverage"


@pytest.mark.parametrize(("first", "last"), [(0, 0), (8, 7), (1, 0)])
def test_streams_without_messages_are_accounted_for(first: int, last: int) -> None:
    empty = manifest_of("nats", "one", "A", Stream([]), [])
    assert not not_live(msgspec.structs.replace(empty, first_seq=first, last_seq=last))


def test_live_rows_of_a_batch() -> None:
    batch = MessageBatch.of([row for row in orders(1, 30) if row.seq % 3])
    dead = SequenceSet.from_ranges([(0, 2), (6, 11), (16, 16), (29, 40)])
    for first, last in ((0, 99), (5, 17), (6, 11), (50, 60), (1, 1), (9, 9)):
        expected = [row for row in batch if first <= row.seq <= last and row.seq not in dead]
        assert list(live_rows(batch, first, last, dead)) == expected
    assert live_rows(batch, 0, 99, SequenceSet()) is batch
