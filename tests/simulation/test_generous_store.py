"""A store that tells two writers of one key that each was first: the last one's bytes stay (seen of SeaweedFS)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from jetkeep.repository.documents import Backup
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.verify import verify
from tests.repositories import Stream, new_repository, orders, read_back, take
from tests.restoring import quiet


class Meeting:
    """Two come; each goes on when both have, once."""

    def __init__(self) -> None:
        self.came, self.all = 0, asyncio.Event()

    async def wait(self) -> None:
        self.came += 1
        if self.came == 2:
            self.all.set()
        await self.all.wait()


class GenerousStore(LocalStore):
    """The first two creations of a key that ends so both succeed, the second over the first, before either is told."""

    def __init__(self, root: Path, generous: str, before: Meeting, after: Meeting) -> None:
        super().__init__(root)
        self._generous, self._before, self._after = generous, before, after

    @property
    def remote(self) -> bool:
        return True

    async def create(self, key: str, data: bytes | memoryview, *, durable: bool = True) -> None:
        if not key.endswith(self._generous) or self._before.came == 2:
            await super().create(key, data, durable=durable)
            return
        await self._before.wait()
        await self.replace(key, bytes(data))
        await self._after.wait()


def two(root: Path, generous: str) -> list[GenerousStore]:
    before, after = Meeting(), Meeting()
    return [GenerousStore(root, generous, before, after) for _ in range(2)]


async def back_up(store: GenerousStore, label: str, name: str, *, relabel: bool) -> Backup:
    return await take(await Repository.open(store), label, {name: Stream([orders(1, 5)])}, relabel=relabel)


async def test_two_backups_that_both_believe_that_they_have_the_label_both_exist(tmp_path: Path) -> None:
    await new_repository(tmp_path)
    first, second = two(tmp_path, "20240110-131500.json")
    taken = await asyncio.gather(
        back_up(first, "20240110-131500", "A", relabel=True), back_up(second, "20240110-131500", "B", relabel=True)
    )
    repository = await Repository.open(LocalStore(tmp_path))
    found = {one.label: one for one in (await repository.backups())[0]}
    assert found.keys() == {one.label for one in taken}
    assert len(found) == 2
    for one, name in zip(taken, "AB", strict=True):
        assert await read_back(repository, found[one.label], name) == orders(1, 5)
    assert (await verify(repository, emit=quiet)).sound


async def test_a_label_that_was_asked_for_is_one_s_and_the_other_is_told(tmp_path: Path) -> None:
    await new_repository(tmp_path)
    first, second = two(tmp_path, "mine.json")
    results = await asyncio.gather(
        back_up(first, "mine", "A", relabel=False), back_up(second, "mine", "B", relabel=False), return_exceptions=True
    )
    (refused,) = (one for one in results if isinstance(one, BaseException))
    assert getattr(refused, "code", refused) == "usage.label-taken"


async def test_two_first_backups_that_both_believe_that_they_created_the_repository_share_it(tmp_path: Path) -> None:
    repositories = await asyncio.gather(*(new_repository(one) for one in two(tmp_path, "jetkeep.json")))
    assert len({one.id for one in repositories}) == 1
    for at, one in enumerate(repositories):
        await take(one, f"b{at}", {"A": Stream([orders(1, 5)])})
    assert (await verify(await Repository.open(LocalStore(tmp_path)), emit=quiet)).sound
