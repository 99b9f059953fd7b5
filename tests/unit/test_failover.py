"""Reading from several repositories as from one: whose bytes are taken, what is told, what is protected."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyrage
import pytest

from jetkeep.catalog import find_point, reading
from jetkeep.errors import BadDataError, JetkeepError, NoRepositoryError, StoreFailedError
from jetkeep.expire import expire
from jetkeep.replicate import copy_backups
from jetkeep.repository.failover import PATIENCE, Failover, Source
from jetkeep.repository.keys import Credentials
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.repository.vault import SealFor
from jetkeep.retention import Policy
from tests.repositories import BEGAN, Stream, new_repository, orders, read_back, some_streams, take
from tests.restoring import quiet
from tests.simulation.faulty import FaultyStore

IDENTITY = pyrage.x25519.Identity.generate()
RECIPIENT = str(IDENTITY.to_public())


async def local(root: Path) -> Repository:
    repository = await new_repository(root / "local")
    for at, label in enumerate(("one", "two")):
        await take(repository, label, some_streams(), started=BEGAN + timedelta(hours=at))
    return repository


async def offsite(root: Path, *, sealed: bool) -> Repository:
    """A second repository with all that the first has."""
    store = LocalStore(root / "offsite")
    target = await Repository.create(store, now_ns=time.time_ns, seal_for=SealFor((RECIPIENT,)) if sealed else None)
    source = await Repository.open(LocalStore(root / "local"))
    report = await copy_backups(source, target, emit=quiet, now_ns=time.time_ns)
    assert not report.failed
    return target


def named(root: Path, name: str, store: FaultyStore | None = None) -> Source:
    async def begin() -> Repository:
        return await Repository.open(store or LocalStore(root / name), credentials=Credentials((str(IDENTITY),)))

    return Source(name, begin)


async def both(root: Path, told: list[str], first: FaultyStore | None = None) -> Failover:
    sources = [named(root, "local", first), named(root, "offsite")]
    return await Failover.begin(sources, tell=told.append, now_ns=time.time_ns)


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])


HARMS: dict[str, Callable[[Path], object]] = {"gone": Path.unlink, "flipped": flip}


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("what", ["*.parquet", "*.json.zst", "backups/*.json"])
async def test_what_the_first_lost_is_read_from_the_second_and_told_once(
    tmp_path: Path, what: str, harm: str, sealed: bool
) -> None:
    await local(tmp_path)
    await offsite(tmp_path, sealed=sealed)
    for path in (tmp_path / "local").rglob(what):
        HARMS[harm](path)
    told: list[str] = []
    repository = await both(tmp_path, told)
    for label in ("one", "two"):
        backup = await repository.read_backup(label)
        async with reading(repository, backup, now_ns=time.time_ns):
            for name, stream in some_streams().items():
                assert await read_back(repository, backup, name) == stream.live()
                assert await read_back(repository, backup, name) == stream.live()
    assert told
    assert len(told) == len(set(told))
    assert all("offsite" in one for one in told)


async def test_the_second_is_not_even_opened_while_the_first_is_sound(tmp_path: Path) -> None:
    await local(tmp_path)

    async def never() -> Repository:
        raise AssertionError

    sources = [named(tmp_path, "local"), Source("offsite", never)]
    repository = await Failover.begin(sources, tell=pytest.fail, now_ns=time.time_ns)
    backup = (await find_point(repository, None)).backups[0]
    async with reading(repository, backup, now_ns=time.time_ns):
        assert await read_back(repository, backup, "ORDERS") == some_streams()["ORDERS"].live()


async def test_a_second_that_cannot_be_read_leaves_the_first_ones_error(tmp_path: Path) -> None:
    await local(tmp_path)
    next((tmp_path / "local/sources/nats/ORDERS").rglob("*.parquet")).unlink()
    told: list[str] = []
    repository = await both(tmp_path, told)
    backup = (await find_point(repository, None)).backups[0]
    with pytest.raises(BadDataError) as failed:
        await read_back(repository, backup, "ORDERS")
    assert failed.value.code == "data.missing"
    assert any("offsite cannot be read" in one for one in told)


async def test_without_the_first_repository_everything_comes_from_the_second(tmp_path: Path) -> None:
    await local(tmp_path)
    await offsite(tmp_path, sealed=True)
    shutil.rmtree(tmp_path / "local")
    told: list[str] = []
    repository = await both(tmp_path, told)
    backup = (await find_point(repository, "latest")).backups[0]
    assert backup.label == "two"
    assert await read_back(repository, backup, "ORDERS") == some_streams()["ORDERS"].live()
    assert len(told) == 1


async def test_when_none_can_be_opened_the_first_ones_error_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoRepositoryError) as failed:
        await both(tmp_path, [])
    assert "local" in failed.value.what


async def test_an_empty_first_repository_gives_way_to_the_second(tmp_path: Path) -> None:
    await local(tmp_path)
    await offsite(tmp_path, sealed=False)
    shutil.rmtree(tmp_path / "local")
    await new_repository(tmp_path / "local")
    repository = await both(tmp_path, [])
    assert (await find_point(repository, None)).label == "two"


async def test_another_machines_newer_backup_in_the_second_is_not_taken_for_ours(tmp_path: Path) -> None:
    await local(tmp_path)
    second = await offsite(tmp_path, sealed=False)
    await take(second, "theirs", {"ORDERS": Stream([orders(1, 3, "x")])}, started=BEGAN + timedelta(days=9))
    repository = await both(tmp_path, [])
    assert (await find_point(repository, "latest")).label == "two"
    assert (await find_point(repository, "theirs")).label == "theirs"


async def test_the_newest_backup_that_only_the_second_has_whole_is_still_the_newest(tmp_path: Path) -> None:
    await local(tmp_path)
    await offsite(tmp_path, sealed=False)
    flip(tmp_path / "local/backups/two.json")
    told: list[str] = []
    assert (await find_point(await both(tmp_path, told), "latest")).label == "two"
    assert told == ["backups/two.json is read from offsite: local does not have it sound"]


async def test_other_bytes_of_the_same_name_are_not_taken(tmp_path: Path) -> None:
    """The second repository has a backup of that label, of another run."""
    await local(tmp_path)
    second = await new_repository(tmp_path / "offsite")
    await take(second, "two", {"ORDERS": Stream([orders(1, 12, "other")])}, started=BEGAN + timedelta(hours=3))
    for path in (tmp_path / "local").rglob("*.parquet"):
        flip(path)
    repository = await both(tmp_path, [])
    backup = await repository.read_backup("two")
    with pytest.raises(BadDataError):
        await read_back(repository, backup, "ORDERS")


async def test_a_store_that_fails_again_and_again_is_asked_last(tmp_path: Path) -> None:
    first = await new_repository(tmp_path / "local")
    await take(first, "one", {"A": Stream([orders(at, at + 1) for at in range(1, 60, 2)])})
    await offsite(tmp_path, sealed=True)
    broken = FaultyStore(tmp_path / "local", lambda call: "fail" if call.key.endswith(".parquet") else None)
    told: list[str] = []
    repository = await both(tmp_path, told, broken)
    backup = (await find_point(repository, None)).backups[0]
    assert len(await read_back(repository, backup, "A")) == 60
    assert PATIENCE <= sum(call.key.endswith(".parquet") for call in broken.calls) < PATIENCE + 6
    assert "local failed again and again: reading from offsite" in told


async def test_what_is_read_in_the_second_is_protected_there(tmp_path: Path) -> None:
    await local(tmp_path)
    second = await offsite(tmp_path, sealed=False)
    for path in (tmp_path / "local").rglob("*.parquet"):
        path.unlink()
    repository = await both(tmp_path, [])
    backup = await repository.read_backup("one")

    async def let_go() -> tuple[list[str], list[str]]:
        policy = Policy(last=1)
        report = await expire(second, policy, now_ns=time.time_ns, emit=quiet, grace_ns=-(10**9))
        return report.expired, report.held

    async with reading(repository, backup, now_ns=time.time_ns):
        entry = backup.stream("ORDERS")
        assert entry
        manifest = await repository.read_manifest(backup, entry)
        await repository.read_segment(manifest.segments[0])
        assert await let_go() == ([], ["one"])
        await repository.read_segment(manifest.segments[1])
    assert await let_go() == (["one"], [])


async def test_a_first_that_fails_at_the_listing_gives_way(tmp_path: Path) -> None:
    await local(tmp_path)
    await offsite(tmp_path, sealed=False)
    broken = FaultyStore(tmp_path / "local", lambda call: "fail" if call.verb == "list" else None)
    told: list[str] = []
    repository = await both(tmp_path, told, broken)
    backup = (await find_point(repository, None)).backups[0]
    assert await read_back(repository, backup, "ORDERS") == some_streams()["ORDERS"].live()
    shutil.rmtree(tmp_path / "offsite")
    repository = await both(tmp_path, [], broken)
    with pytest.raises(StoreFailedError):
        await find_point(repository, None)


async def test_a_wrong_key_is_told_as_such(tmp_path: Path) -> None:
    await new_repository(tmp_path / "x")
    for name in ("local", "offsite"):
        store = LocalStore(tmp_path / name)
        await Repository.create(
            store, now_ns=time.time_ns, seal_for=SealFor((str(pyrage.x25519.Identity.generate().to_public()),))
        )
    with pytest.raises(JetkeepError) as failed:
        await both(tmp_path, [])
    assert failed.value.code == "key.wrong"
