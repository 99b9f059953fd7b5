"""The index of backups: fewer requests, never another answer."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from jetkeep.repository import encoding, index, layout
from jetkeep.repository.documents import Backup, Index
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from tests.repositories import BEGAN, new_repository, some_streams, take


class FarStore(LocalStore):
    """A directory that says that each call is a request, and counts them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.calls: Counter[str] = Counter()

    @property
    def remote(self) -> bool:
        return True

    async def read(self, key: str, max_bytes: int) -> bytes:
        self.calls[f"read {key.split('/', maxsplit=1)[0]}"] += 1
        return await super().read(key, max_bytes)


async def with_backups(root: Path, count: int) -> FarStore:
    """A repository with so many backups, taken one after the other."""
    store = FarStore(root)
    repository = await new_repository(store)
    streams = {"ORDERS": some_streams()["ORDERS"]}
    for at in range(count):
        await take(repository, f"b{at:04d}", streams, started=BEGAN + timedelta(hours=at))
        await repository.backups()
    store.calls.clear()
    return store


async def labels(store: LocalStore) -> list[str]:
    whole, damage = await (await Repository.open(store)).backups()
    assert not damage
    return [one.label for one in whole]


async def test_many_backups_come_back_in_a_few_reads(tmp_path: Path) -> None:
    store = await with_backups(tmp_path, 40)
    assert await labels(store) == [f"b{at:04d}" for at in range(40)]
    assert store.calls["read backups"] <= index.LOOSE + 1
    assert store.calls["read index"] == 1


async def test_full_index_objects_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "FULL", 8)
    store = await with_backups(tmp_path, 21)
    kinds = Counter(layout.index_of(info.key) for info in [one async for one in store.list(layout.INDEX)])
    assert kinds == {"full": 2, "tail": 1}
    assert await labels(store) == [f"b{at:04d}" for at in range(21)]
    assert store.calls["read backups"] <= index.LOOSE + 1


async def test_what_the_listing_no_longer_shows_does_not_exist(tmp_path: Path) -> None:
    store = await with_backups(tmp_path, 12)
    await store.delete(layout.backup_key("b0003"))
    assert "b0003" not in await labels(store)


async def test_an_object_that_is_not_the_one_that_was_indexed_is_read_itself(tmp_path: Path) -> None:
    store = await with_backups(tmp_path, 12)
    path = tmp_path / layout.backup_key("b0003")
    other = encoding.unseal(path.read_bytes(), "b0003", Backup)
    path.write_bytes(encoding.seal(msgspec.structs.replace(other, tags=["other"])))
    whole, _ = await (await Repository.open(store)).backups()
    assert {one.label: one.tags for one in whole}["b0003"] == ["other"]


@pytest.mark.parametrize("harm", ["cut", "empty", "other bytes", "gone"])
async def test_a_damaged_index_costs_requests_and_nothing_else(tmp_path: Path, harm: str) -> None:
    store = await with_backups(tmp_path, 12)
    for path in (tmp_path / "index").iterdir():
        data = path.read_bytes()
        if harm == "gone":
            path.unlink()
        else:
            path.write_bytes({"cut": data[:-9], "empty": b"", "other bytes": bytes(len(data))}[harm])
    assert await labels(store) == [f"b{at:04d}" for at in range(12)]


async def test_an_index_that_lies_is_not_believed(tmp_path: Path) -> None:
    store = await with_backups(tmp_path, 12)
    for path in (tmp_path / "index").iterdir():
        found = encoding.decode_compressed(path.read_bytes(), path.name, Index)
        for entry in found.entries:
            entry.text = entry.text.replace('"status":"complete"', '"status":"partial"', 1)
        path.write_bytes(index._encode(found.entries))
    assert await labels(store) == [f"b{at:04d}" for at in range(12)]
    whole, _ = await (await Repository.open(store)).backups()
    assert {one.status for one in whole} == {"complete"}
