"""Damaged objects that come back from another repository: the same bytes or none, whatever dies on the way."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pyrage
import pytest

from jetkeep.errors import AccessDeniedError, JetkeepError
from jetkeep.repair import Repair, repair
from jetkeep.replicate import copy_backups
from jetkeep.repository.documents import FilesEntry
from jetkeep.repository.keys import Credentials
from jetkeep.repository.leases import lease
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.repository.store import Store
from jetkeep.repository.vault import SealFor
from jetkeep.verify import verify
from tests.repositories import BEGAN, Stream, files, orders, some_streams, take
from tests.restoring import quiet
from tests.simulation.faulty import Call, Crash, FaultyStore

IDENTITY = pyrage.x25519.Identity.generate()
CREDENTIALS = Credentials((str(IDENTITY),))
GROWN = {**some_streams(), "ORDERS": Stream([*some_streams()["ORDERS"].runs, orders(13, 20)])}


async def opened(place: Path | Store) -> Repository:
    store = LocalStore(place) if isinstance(place, Path) else place
    return await Repository.open(store, credentials=CREDENTIALS)


async def created(root: Path, *, sealed: bool) -> Repository:
    seal_for = SealFor((str(IDENTITY.to_public()),)) if sealed else None
    await Repository.create(LocalStore(root), now_ns=time.time_ns, seal_for=seal_for)
    return await opened(root)


async def pair(root: Path, *, sealed: bool = False, other_sealed: bool = False) -> dict[str, bytes]:
    """Two repositories with two backups, the second of which grew from the first; the files of the one to be harmed."""
    here = await created(root / "here", sealed=sealed)
    await take(here, "one", some_streams())
    await take(await opened(root / "here"), "two", GROWN, started=BEGAN + timedelta(hours=1))
    there = await created(root / "there", sealed=other_sealed)
    report = await copy_backups(await opened(root / "here"), there, emit=quiet, now_ns=time.time_ns)
    assert report.copied == ["one", "two"]
    return files(root / "here")


async def mend(place: Path | Store, *others: Path, write: bool = True) -> list[Repair]:
    """Like `verify --repair`: until nothing more comes back."""
    repository = await opened(place)
    done: dict[str, Repair] = {}
    while damaged := await damage(repository):
        found = await repair(
            repository,
            [await opened(one) for one in others],
            damaged,
            write=write,
            emit=quiet,
            now_ns=time.time_ns,
        )
        done |= {one.key: one for one in found}
        if not any(one.done for one in found):
            break
    return list(done.values())


async def damage(repository: Repository) -> dict[str, tuple[str, ...]]:
    report = await verify(repository, emit=quiet)
    return {one.key: one.backups for one in report.findings if one.severity == "damage"}


def flip(path: Path) -> None:
    data = path.read_bytes()
    at = len(data) // 2
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


HARMS: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "emptied": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize(("sealed", "other_sealed"), list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("harm", HARMS)
async def test_every_object_comes_back_byte_by_byte(
    tmp_path: Path, harm: str, sealed: bool, other_sealed: bool
) -> None:
    before = await pair(tmp_path, sealed=sealed, other_sealed=other_sealed)
    objects = sorted(key for key in before if key.startswith("sources/"))
    # One after the other: with its run's key and its neighbours gone, a sealed object cannot be made again.
    for key in objects:
        HARMS[harm](tmp_path / "here" / key)
        (done,) = await mend(tmp_path / "here", tmp_path / "there")
        assert (done.key, done.done, done.why) == (key, True, "")
        assert files(tmp_path / "here") == before
    assert len(objects) > 10


@pytest.mark.parametrize("other_sealed", [False, True])
async def test_all_segments_of_a_repository_come_back(tmp_path: Path, other_sealed: bool) -> None:
    before = await pair(tmp_path, other_sealed=other_sealed)
    for path in (tmp_path / "here").rglob("*.parquet"):
        path.unlink()
    assert all(one.done for one in await mend(tmp_path / "here", tmp_path / "there"))
    assert files(tmp_path / "here") == before


async def test_segments_and_manifests_that_are_lost_together_come_back_from_a_repository_like_it(
    tmp_path: Path,
) -> None:
    before = await pair(tmp_path)
    for path in [*(tmp_path / "here").rglob("*.parquet"), *(tmp_path / "here").rglob("*.zst")]:
        path.unlink()
    assert all(one.done for one in await mend(tmp_path / "here", tmp_path / "there"))
    assert files(tmp_path / "here") == before


@pytest.mark.parametrize("other_sealed", [False, True])
async def test_a_commit_comes_back_while_it_still_states_its_digest(tmp_path: Path, other_sealed: bool) -> None:
    before = await pair(tmp_path, other_sealed=other_sealed)
    path = tmp_path / "here/backups/two.json"
    for harm in (HARMS["flipped"], HARMS["cut"], lambda path: path.write_bytes(b"x" * 40 + path.read_bytes()[40:])):
        harm(path)
        assert [one.done for one in await mend(tmp_path / "here", tmp_path / "there")] == [True]
        assert files(tmp_path / "here") == before
    path.write_bytes(b"")
    (left,) = await mend(tmp_path / "here", tmp_path / "there")
    assert not left.done
    assert "`jetkeep copy` brings the backup again" in left.why


async def test_the_archive_of_files_comes_back(tmp_path: Path) -> None:
    here = await created(tmp_path / "here", sealed=True)
    async with lease(here.store, "backup", now_ns=time.time_ns) as held:
        archive = await here.put_files("nats", "files", b"an archive" * 99)
        backup = msgspec.structs.replace(
            await take(here, "model", {}),
            label="files",
            run="ab" * 16,
            files=FilesEntry(status="complete", archive=archive, count=1),
        )
        await here.commit(backup, held)
    there = await created(tmp_path / "there", sealed=True)
    await copy_backups(await opened(tmp_path / "here"), there, emit=quiet, now_ns=time.time_ns)
    before = files(tmp_path / "here")
    flip(tmp_path / "here" / archive.key)
    assert [one.done for one in await mend(tmp_path / "here", tmp_path / "there")] == [True]
    assert files(tmp_path / "here") == before


async def test_without_being_asked_to_write_it_says_where_the_object_is(tmp_path: Path) -> None:
    await pair(tmp_path)
    path = next((tmp_path / "here").rglob("*.parquet"))
    flip(path)
    before = files(tmp_path / "here")
    (found,) = await mend(tmp_path / "here", tmp_path / "there", write=False)
    assert (found.found_in, found.done) == (str(tmp_path / "there"), False)
    assert files(tmp_path / "here") == before


async def test_what_is_damaged_there_as_well_is_not_taken_and_the_next_repository_is_asked(tmp_path: Path) -> None:
    before = await pair(tmp_path)
    third = await created(tmp_path / "third", sealed=True)
    await copy_backups(await opened(tmp_path / "here"), third, emit=quiet, now_ns=time.time_ns)
    for path in [*(tmp_path / "here").rglob("*.parquet"), *(tmp_path / "there").rglob("*.parquet")]:
        flip(path)
    harmed = files(tmp_path / "here")
    assert not any(one.done for one in await mend(tmp_path / "here", tmp_path / "there"))
    assert files(tmp_path / "here") == harmed
    done = await mend(tmp_path / "here", tmp_path / "there", tmp_path / "third")
    assert {one.found_in for one in done} == {str(tmp_path / "third")}
    assert files(tmp_path / "here") == before


async def test_a_sealed_repository_is_not_searched_without_an_identity(tmp_path: Path) -> None:
    await pair(tmp_path, other_sealed=True)
    here, there = await opened(tmp_path / "here"), await Repository.open(LocalStore(tmp_path / "there"))
    with pytest.raises(AccessDeniedError) as refused:
        await repair(here, [there], {}, write=True, emit=quiet, now_ns=time.time_ns)
    assert refused.value.code == "key.locked"


@pytest.mark.parametrize(
    ("fault", "step"),
    [
        ("crash_before", 7),
        ("crash_after", 8),
        *(
            pytest.param(one, 1, marks=pytest.mark.slow)
            for one in ("crash_before", "crash_after", "fail", "lose_answer")
        ),
    ],
)
async def test_a_repair_that_dies_at_any_call_makes_nothing_worse_and_the_next_one_ends_it(
    tmp_path: Path, fault: str, step: int
) -> None:
    before = await pair(tmp_path)
    harmed = sorted(path for path in (tmp_path / "here").rglob("*") if path.suffix in (".parquet", ".zst"))[::3]
    for path in harmed:
        flip(path)
    keys = {path.relative_to(tmp_path / "here").as_posix() for path in harmed}
    number = 0
    while True:
        number += step

        def at(call: Call, number: int = number) -> str | None:
            return fault if call.number == number else None

        for path in harmed:
            path.write_bytes(before[path.relative_to(tmp_path / "here").as_posix()])
            flip(path)
        faulty = FaultyStore(tmp_path / "here", at)
        with contextlib.suppress(Crash, JetkeepError, BaseExceptionGroup):
            await mend(faulty, tmp_path / "there")
        now = files(tmp_path / "here")
        assert all(now[key] == before[key] for key in before if key not in keys)
        assert set(await damage(await opened(tmp_path / "here"))) <= keys
        assert all(one.done for one in await mend(tmp_path / "here", tmp_path / "there"))
        assert {key: data for key, data in files(tmp_path / "here").items() if "leases/" not in key} == before
        for path in (tmp_path / "here").glob("leases/*"):
            path.unlink()  # of the dead
        if len(faulty.calls) < number:
            break
    assert number > 40
