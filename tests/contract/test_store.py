"""What every store must do (jetkeep.repository.store.Store): one suite, a subclass for each kind of store."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from jetkeep.errors import (
    AccessDeniedError,
    AlreadyThereError,
    BadDataError,
    NoObjectError,
    StoreError,
    StoreFailedError,
)
from jetkeep.repository import durable
from jetkeep.repository.local import LocalStore
from jetkeep.repository.store import ObjectInfo, Store
from tests.backing_up import wait_for
from tests.mounts import make_read_only, small_disk

WRITERS = 8
KEYS = [
    "jetkeep.json",
    "backups/20261123-131500.json",
    "sources/s/gr=C3=B6=C3=9Fe/20261123T131500-123456789/segments/00000000000000000001-00000000000000000002-0123456789abcdef.parquet",
    "/".join(["k" * 255, *["k" * 100] * 7]),
]
NOT_KEYS = [
    "",
    ".",
    "..",
    "/",
    "/etc/passwd",
    "../x",
    "a/../x",
    "a/..",
    "a/./x",
    "a//x",
    "a/",
    "a\\x",
    "a b",
    "ö",
    "a\n",
    "a\x00",
    "~/x",
    "a:b",
    "k" * 256,
    "/".join(["k"] * 9),
    "/".join(["k" * 200] * 6),
]


async def keys(store: Store, prefix: str = "") -> list[str]:
    return sorted([info.key async for info in store.list(prefix)])


async def everything(store: Store) -> dict[str, bytes]:
    return {key: await store.read(key, 2**30) for key in await keys(store)}


class StoreContract(ABC):
    """`view()` opens the same store once more, as another process would.

    Attributes:
        races: how many keys are fought for.
        always_one: exactly one writer of a key is told that it was first. Where that cannot be relied upon, whoever is told
            so may be wrong, but what is there is whole, is of somebody who was told so, and stays.
        many: the keys of a long listing, more than one answer holds.
    """

    races = 20
    always_one = True
    many = 2500

    @abstractmethod
    def view(self) -> Store:
        """One more object of the same, empty store."""

    @pytest.mark.parametrize("durable", [True, False])
    @pytest.mark.parametrize("key", KEYS)
    async def test_what_was_created_is_read_by_everybody(self, key: str, durable: bool) -> None:
        store = self.view()
        await store.create(key, b"some bytes", durable=durable)
        assert await self.view().read(key, 10) == b"some bytes"
        await store.sync()
        assert await everything(self.view()) == {key: b"some bytes"}

    @pytest.mark.parametrize("data", [b"", b"\x00", os.urandom(3_000_000)], ids=["nothing", "a zero", "megabytes"])
    async def test_bytes_stay_what_they_are(self, data: bytes) -> None:
        store = self.view()
        await store.create("a", data)
        await store.create("b", memoryview(data))
        await store.replace("c", data)
        assert await everything(store) == {"a": data, "b": data, "c": data}

    async def test_a_key_that_is_taken_is_refused_and_not_touched(self) -> None:
        await self.view().create("a/b", b"first")
        for flag in (True, False):
            with pytest.raises(AlreadyThereError):
                await self.view().create("a/b", b"second", durable=flag)
        assert await everything(self.view()) == {"a/b": b"first"}

    @pytest.mark.parametrize("durable", [True, False])
    async def test_of_many_writers_of_one_key_one_wins(self, durable: bool) -> None:
        for attempt in range(self.races):
            key = f"race/{attempt}"
            results = await asyncio.gather(
                *(self.view().create(key, b"%d" % at * 5000, durable=durable) for at in range(WRITERS)),
                return_exceptions=True,
            )
            winners = [at for at, result in enumerate(results) if result is None]
            assert all(isinstance(result, AlreadyThereError) for result in results if result is not None), results
            there = await self.view().read(key, 10**6)
            assert len(winners) == 1 or not self.always_one, results
            assert there in [b"%d" % at * 5000 for at in winners or range(WRITERS)]
            with pytest.raises(AlreadyThereError):
                await self.view().create(key, b"late", durable=durable)
            assert await self.view().read(key, 10**6) == there

    async def test_writers_and_deleters_of_one_folder_do_not_disturb_each_other(self) -> None:
        async def come_and_go(name: int) -> None:
            store = self.view()
            for _ in range(25):
                await store.create(f"a/b/c/{name}", b"x", durable=False)
                await store.delete(f"a/b/c/{name}")
            await store.create(f"a/b/c/{name}", b"%d" % name, durable=False)

        await asyncio.gather(*(come_and_go(name) for name in range(WRITERS)))
        assert await everything(self.view()) == {f"a/b/c/{name}": b"%d" % name for name in range(WRITERS)}

    async def test_what_is_replaced_is_old_or_new_to_every_reader(self) -> None:
        await self.view().replace("leases/x", b"\x00" * 200_000)

        async def write() -> None:
            for at in range(1, 60):
                await self.view().replace("leases/x", bytes([at]) * 200_000)

        writing = asyncio.create_task(write())
        seen = set()
        while not writing.done():
            data = await self.view().read("leases/x", 200_000)
            assert len(data) == 200_000
            assert len(set(data)) == 1
            seen.add(data[0])
        await writing
        assert len(seen) > 1
        assert await keys(self.view()) == ["leases/x"]

    async def test_a_listing_has_exactly_the_keys_with_the_prefix(self) -> None:
        store = self.view()
        for key in ("jetkeep.json", "a/b", "a/bc", "a/b-c/d", "ab/c", "b"):
            await store.create(key, key.encode(), durable=False)
        expected = {
            "": ["a/b", "a/b-c/d", "a/bc", "ab/c", "b", "jetkeep.json"],
            "a": ["a/b", "a/b-c/d", "a/bc", "ab/c"],
            "a/": ["a/b", "a/b-c/d", "a/bc"],
            "a/b": ["a/b", "a/b-c/d", "a/bc"],
            "a/b-": ["a/b-c/d"],
            "a/b-c/": ["a/b-c/d"],
            "jetkeep.json": ["jetkeep.json"],
            "c": [],
            "x/y/z/": [],
        }
        for prefix, found in expected.items():
            assert await keys(self.view(), prefix) == found, prefix

    async def test_a_listing_tells_sizes_and_times(self) -> None:
        before = time.time_ns() - 2 * 10**9
        await self.view().create("a", b"12345")
        (info,) = [one async for one in self.view().list("")]
        assert info == ObjectInfo("a", 5, info.modified_ns)
        assert before < info.modified_ns < time.time_ns() + 2 * 10**9

    async def test_a_long_listing_lacks_nothing(self) -> None:
        store = self.view()
        made = [f"sources/s/{at % 40}/{at}" for at in range(self.many)]
        await asyncio.gather(*(store.create(key, b"", durable=False) for key in made))
        await store.sync()
        assert await keys(self.view(), "sources/") == sorted(made)

    async def test_what_is_deleted_while_it_is_listed_does_not_disturb(self) -> None:
        store = self.view()
        for at in range(30):
            await store.create(f"a/{at}/x", b"", durable=False)
        found = []
        async for info in self.view().list("a/"):
            found.append(info.key)
            await store.delete(f"a/{len(found)}/x")
        assert {f"a/{at}/x" for at in range(30)} >= set(found)
        assert await keys(self.view()) == ["a/0/x"]

    async def test_what_is_deleted_is_gone_and_may_come_again(self) -> None:
        store = self.view()
        await store.create("a/b/c", b"1")
        await self.view().delete("a/b/c")
        with pytest.raises(NoObjectError):
            await store.read("a/b/c", 10)
        assert await keys(store) == []
        await store.delete("a/b/c")
        await store.delete("never/was")
        await store.create("a/b/c", b"2")
        assert await everything(store) == {"a/b/c": b"2"}

    async def test_what_is_not_there_cannot_be_read(self) -> None:
        await self.view().create("a/b", b"")
        for key in ("x", "a", "a/c", "a/b/c"):
            with pytest.raises(NoObjectError):
                await self.view().read(key, 10)

    async def test_nothing_larger_than_the_bound_is_read(self) -> None:
        await self.view().create("a", b"12345")
        assert await self.view().read("a", 5) == b"12345"
        with pytest.raises(BadDataError):
            await self.view().read("a", 4)

    @pytest.mark.parametrize("key", NOT_KEYS)
    async def test_keys_that_are_none_are_refused_everywhere(self, key: str) -> None:
        store = self.view()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.create(key, b"x"),
            lambda: store.create(key, b"x", durable=False),
            lambda: store.replace(key, b"x"),
            lambda: store.read(key, 10),
            lambda: store.delete(key),
        ]
        for call in calls:
            with pytest.raises(BadDataError) as refused:
                await call()
            assert refused.value.code == "data.key"
        assert await keys(self.view()) == []

    async def test_an_empty_store_can_be_looked_at(self) -> None:
        store = self.view()
        assert await keys(store) == []
        assert await store.remove_unfinished(time.time_ns()) == 0
        await store.sync()
        free = await store.free_bytes()
        assert free is None or free > 0
        assert store.url


class TestLocalStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "not yet" / "there"

    def view(self) -> LocalStore:
        return LocalStore(self.folder)


WRITE = """
import asyncio, hashlib, os, sys, time
from pathlib import Path
from jetkeep.errors import AlreadyThereError
from jetkeep.repository.local import LocalStore

async def one_key():
    data = sys.argv[2].encode() * 5000
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        await LocalStore(Path(sys.argv[1])).create("the/key", data)
    except AlreadyThereError:
        return 1
    return 0

async def for_ever():
    store = LocalStore(Path(sys.argv[1]))
    while True:
        data = os.urandom(400_000)
        await store.create("a/" + hashlib.sha256(data).hexdigest(), data, durable=False)

sys.exit(asyncio.run(one_key() if len(sys.argv) > 2 else for_ever()))
"""


def writer(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITE, *words]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_of_many_processes_that_write_one_key_one_wins(tmp_path: Path) -> None:
    processes = [writer(str(tmp_path / "store"), str(at)) for at in range(WRITERS)]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=30)
    results = [process.returncode for process in processes]
    assert sorted(results) == [0] + [1] * (WRITERS - 1)
    data = asyncio.run(LocalStore(tmp_path / "store").read("the/key", 10**6))
    assert data == b"%d" % results.index(0) * 5000


async def test_a_writer_that_is_killed_leaves_no_half_object(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for at in range(3):
        process = writer(str(tmp_path))
        assert wait_for(lambda wanted=5 * (at + 1): len(list(tmp_path.glob("a/*"))) > wanted, process)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.communicate()
    objects = await everything(store)
    assert len(objects) > 5
    for key, data in objects.items():
        assert key == "a/" + hashlib.sha256(data).hexdigest()
    unfinished = tmp_path / "a" / f"x.0123{durable.UNFINISHED}"
    unfinished.write_bytes(b"half")
    assert await everything(store) == objects
    left = len(list(tmp_path.glob(f"a/*{durable.UNFINISHED}")))
    assert await store.remove_unfinished(time.time_ns() - 3600 * 10**9) == 0
    assert await store.remove_unfinished(time.time_ns() + 10**9) == left
    assert await everything(store) == objects
    assert len(list(tmp_path.glob("a/*"))) == len(objects)


class Synced:
    """Notes which files and folders are made durable, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[Path] = []
        self._real = os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, handle: int) -> None:
        self._real(handle)
        self.paths.append(Path(os.readlink(f"/proc/self/fd/{handle}")))  # noqa: PTH115 - of a handle


async def test_durable_is_the_file_before_its_name_and_then_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = Synced(monkeypatch)
    await LocalStore(tmp_path / "r").create("a/b/c", b"x")
    assert synced.paths[-1].is_dir()
    names = [one.name for one in synced.paths]
    partial = next(at for at, name in enumerate(names) if name.endswith(durable.UNFINISHED))
    for folder in (tmp_path / "r", tmp_path / "r/a", tmp_path / "r/a/b"):
        assert folder in synced.paths[partial + 1 :]
    assert tmp_path in synced.paths  # the name of the new root


@pytest.mark.parametrize("count", [1, durable.MANY_FILES - 1])
async def test_sync_reaches_every_file_and_folder_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    store = LocalStore(tmp_path)
    made = [f"a/{at}/x" for at in range(count)]
    synced = Synced(monkeypatch)
    for key in made:
        await store.create(key, b"x", durable=False)
    assert not {tmp_path / key for key in made} & set(synced.paths)
    synced.paths.clear()
    await store.sync()
    wanted = {tmp_path / key for key in made}
    assert wanted | {one.parent for one in wanted} | {tmp_path / "a", tmp_path} == set(synced.paths)
    synced.paths.clear()
    await store.sync()
    assert synced.paths == []


async def test_also_a_file_that_was_there_already_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wrote it may have died before it was durable."""
    await LocalStore(tmp_path).create("a", b"x", durable=False)
    store = LocalStore(tmp_path)
    with pytest.raises(AlreadyThereError):
        await store.create("a", b"x", durable=False)
    synced = Synced(monkeypatch)
    await store.sync()
    assert tmp_path / "a" in synced.paths


async def test_deletions_are_durable_with_the_next_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    await store.create("a/b", b"x")
    await store.create("a/c", b"x")
    await store.delete("a/b")
    synced = Synced(monkeypatch)
    await store.sync()
    assert tmp_path / "a" in synced.paths


async def test_what_is_stored_is_the_owners_alone(tmp_path: Path) -> None:
    await LocalStore(tmp_path / "r").create("a/b", b"x")
    for path in (tmp_path / "r").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "r").stat().st_mode & 0o077 == 0


async def test_a_full_disk_is_an_error_that_leaves_no_object_and_no_rest(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        store = LocalStore(disk / "r")
        await store.create("a/first", b"1" * 600_000)
        for flag in (True, False):
            with pytest.raises(StoreFailedError) as full:
                await store.create("a/second", b"2" * 600_000, durable=flag)
            assert (full.value.code, full.value.exit_status) == ("store.full", 13)
            assert full.value.hint
        with pytest.raises(StoreFailedError):
            await store.replace("a/first", b"3" * 600_000)
        assert await everything(store) == {"a/first": b"1" * 600_000}
        assert len(list(disk.glob("r/a/*"))) == 1
        await store.sync()
        await store.delete("a/first")
        await store.create("a/second", b"2" * 600_000)
        assert await keys(store) == ["a/second"]


async def test_a_read_only_store_is_read_and_refuses_everything_else(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        store = LocalStore(disk)
        await store.create("a/b", b"x")
        make_read_only(disk)
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.create("a/c", b"x"),
            lambda: store.create("d/e", b"x", durable=False),
            lambda: store.replace("a/b", b"y"),
            lambda: store.delete("a/b"),
        ]
        for call in calls:
            with pytest.raises(AccessDeniedError) as refused:
                await call()
            assert (refused.value.code, refused.value.exit_status) == ("store.denied", 12)
        assert await everything(store) == {"a/b": b"x"}


async def test_a_file_in_place_of_the_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    store = LocalStore(tmp_path / "file")
    with pytest.raises(StoreError) as failed:
        await store.create("a", b"x")
    assert "is a directory" in failed.value.hint
    with pytest.raises(StoreError):
        await keys(store)
    assert (tmp_path / "file").read_text() == "mine"


async def test_files_of_others_are_listed_and_lost_and_found_is_not(tmp_path: Path) -> None:
    (tmp_path / "holiday photo.jpg").write_text("mine")
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "lost+found" / "x").write_text("")
    assert await keys(LocalStore(tmp_path)) == ["holiday photo.jpg"]


async def test_a_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_text("")
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "link").symlink_to(tmp_path / "elsewhere")
    assert "link/x" not in await keys(LocalStore(tmp_path / "r"))


def test_no_more_open_files_is_told(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, resource
from pathlib import Path
from jetkeep.errors import StoreFailedError
from jetkeep.repository.local import LocalStore
async def run():
    store = LocalStore(Path({str(tmp_path)!r}))
    await store.create("a", b"x")
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    try:
        await store.create("b", b"x")
    except StoreFailedError as failure:
        print(failure.retryable, "ulimit" in failure.hint)
asyncio.run(run())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "True True\n", done.stderr
