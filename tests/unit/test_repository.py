"""What a repository takes, where it begins, and what it refuses."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jetkeep.errors import BadDataError, NoRepositoryError, StoreFailedError, UsageError
from jetkeep.repository import encoding
from jetkeep.repository.leases import lease
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from tests.repositories import TIMELINE, Stream, manifest_of, new_repository, orders, put, put_run, read_back, take

STREAMS = {"A": Stream([orders(1, 5)])}


async def open_or_create(root: Path) -> Repository:
    return await Repository.open_or_create(LocalStore(root), now_ns=time.time_ns)


@pytest.mark.parametrize("place", ["absent", "absent/below/absent", "empty"])
async def test_a_repository_begins_where_nothing_is(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    made = await open_or_create(tmp_path / place)
    assert len(made.id) == 32
    assert (await open_or_create(tmp_path / place)).id == made.id
    assert (await Repository.open(LocalStore(tmp_path / place))).id == made.id


async def test_a_fresh_file_system_is_an_empty_place(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "lost+found" / "#1234").write_text("x")
    assert await open_or_create(tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "deep/below/notes.txt", ".hidden"])
async def test_a_place_where_something_else_is_is_refused_and_not_touched(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    with pytest.raises(UsageError) as caught:
        await open_or_create(tmp_path)
    assert caught.value.code == "usage.not-empty"
    assert name in caught.value.what
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]


async def test_a_repository_that_lost_its_first_document_is_recognised(tmp_path: Path) -> None:
    await take(await new_repository(tmp_path), "one", STREAMS)
    (tmp_path / "jetkeep.json").unlink()
    with pytest.raises(UsageError, match=r"jetkeep\.json is missing") as caught:
        await open_or_create(tmp_path)
    assert "put jetkeep.json back" in caught.value.hint
    assert not (tmp_path / "jetkeep.json").exists()


async def test_a_repository_is_not_created_twice(tmp_path: Path) -> None:
    await new_repository(tmp_path)
    with pytest.raises(UsageError) as caught:
        await Repository.create(LocalStore(tmp_path), now_ns=time.time_ns)
    assert caught.value.code == "usage.repository-exists"


async def test_nothing_is_created_by_opening(tmp_path: Path) -> None:
    with pytest.raises(NoRepositoryError):
        await Repository.open(LocalStore(tmp_path / "absent"))
    assert not (tmp_path / "absent").exists()


async def test_first_backups_that_begin_together_are_of_one_repository(tmp_path: Path) -> None:
    made = await asyncio.gather(*(open_or_create(tmp_path / "r") for _ in range(8)))
    assert len({one.id for one in made}) == 1


async def test_a_file_where_the_repository_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreFailedError, match="directory") as caught:
        await open_or_create(tmp_path / "file")
    assert "--repo" in caught.value.hint


async def test_what_is_there_already_is_used_and_what_is_damaged_is_written_beside_it(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    refs = [await put_run(repository, "nats", "A", TIMELINE, orders(1, 5)) for _ in range(2)]
    assert refs[0] == refs[1]
    for copy in ("-2", "-3"):
        path = tmp_path / refs[-1].key
        path.write_bytes(path.read_bytes()[:-1])
        refs.append(await put_run(repository, "nats", "A", TIMELINE, orders(1, 5)))
        assert refs[-1].key == refs[0].key.replace(".parquet", f"{copy}.parquet")
        assert await repository.read_segment(refs[-1])
    entry = await put(repository, "nats", "one", "A", STREAMS["A"])
    assert entry.manifest
    manifest = tmp_path / entry.manifest.key
    manifest.write_bytes(b"")
    again = await put(repository, "nats", "one", "A", STREAMS["A"])
    assert again.manifest
    assert again.manifest.key == entry.manifest.key.replace(".json.zst", "-2.json.zst")


async def test_what_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    manifest = manifest_of("nats", "one", "A", Stream([]), [])
    manifest.messages = -1
    with pytest.raises(BadDataError):
        await repository.put_manifest(manifest)
    backup = await take(repository, "one", STREAMS)
    async with lease(repository.store, "backup", now_ns=time.time_ns) as held:
        for name, value in (("started_at", "yesterday"), ("status", "fine"), ("repository", 5)):
            strange = encoding.unseal(encoding.seal(backup), "one", type(backup))
            strange.label = "two"
            setattr(strange, name, value)
            with pytest.raises(BadDataError):
                await repository.commit(strange, held)
    assert [one.label for one in (await repository.backups())[0]] == ["one"]


async def test_labels_come_from_the_time_and_count_on_when_taken(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    started = datetime(2026, 11, 23, 13, 15, tzinfo=UTC)
    for expected in ("20261123-131500", "20261123-131500-2", "20261123-131500-3"):
        label = await repository.free_label(None, started)
        assert label == expected
        await take(repository, label, {})
    assert await repository.free_label("mine", started) == "mine"
    with pytest.raises(UsageError):
        await repository.free_label("20261123-131500-2", started)
    with pytest.raises(UsageError):
        await repository.free_label("no/label", started)


async def test_backups_come_in_the_order_in_which_they_began_and_damage_beside_them(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    for label, hour in (("c", 1), ("a", 2), ("b", 3)):
        await take(repository, label, STREAMS, started=datetime(2026, 11, 23, hour, tzinfo=UTC))
    (tmp_path / "backups" / "bad.json").write_bytes(b"{}")
    (tmp_path / "backups" / "notes.txt").write_text("mine")
    whole, damage = await repository.backups()
    assert [one.label for one in whole] == ["c", "a", "b"]
    assert [one.key for one in damage] == ["backups/bad.json"]


async def test_times_of_other_writers_are_ordered_as_times(tmp_path: Path) -> None:
    """Other writers may leave the fraction out; as texts, `…00Z` comes after `…00.5Z`."""
    repository = await new_repository(tmp_path)
    for label, text in (("late", "2026-11-23T13:15:00.5Z"), ("early", "2026-11-23T13:15:00Z")):
        backup = await take(repository, label, STREAMS)
        backup.started_at = text
        (tmp_path / "backups" / f"{label}.json").write_bytes(encoding.seal(backup))
    assert [one.label for one in (await repository.backups())[0]] == ["early", "late"]


async def test_the_newest_entry_of_a_stream_is_of_its_source_and_whole(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    for hour, (label, streams, source, failed) in enumerate(
        [
            ("one", {"A": Stream([orders(1, 5)]), "B": Stream([orders(1, 5)])}, "nats", []),
            ("two", {"A": Stream([orders(1, 9)])}, "nats", ["B"]),
            ("three", {"A": Stream([orders(1, 20)])}, "other", []),
        ]
    ):
        started = datetime(2026, 11, 23, hour, tzinfo=UTC)
        await take(repository, label, streams, started=started, source=source, failed=failed)
    newest = await repository.newest_entries("nats")
    assert {name: entry.last_seq for name, entry in newest.items()} == {"A": 9, "B": 5}


async def test_many_backups_are_listed_at_once(tmp_path: Path) -> None:
    """Their objects are read side by side, and never more open files than a process may have."""
    repository = await new_repository(tmp_path)
    backup = await take(repository, "b", STREAMS)
    for number in range(3000):
        backup.label = f"b{number}"
        (tmp_path / "backups" / f"b{number}.json").write_bytes(encoding.seal(backup))
    began = time.monotonic()
    whole, damage = await repository.backups()
    assert (len(whole), damage) == (3001, [])
    assert time.monotonic() - began < 10
    assert await read_back(repository, whole[0], "A") == orders(1, 5)
