"""The invariants of docs/format.md, each by its name (all-or-nothing restore has a file of its own)."""

from __future__ import annotations

import time
from pathlib import Path

import duckdb
import pytest

from jetkeep.capture.run import BackupOptions, back_up
from jetkeep.catalog import not_live
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.errors import AlreadyThereError, BadDataError
from jetkeep.expire import expire
from jetkeep.repository import layout
from jetkeep.repository.leases import lease
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.retention import Policy
from tests.conftest import StartServer
from tests.property.test_corruption import objects, read_all, small_repository
from tests.publisher import Publisher
from tests.restoring import connected, consumer, keep, quiet

DAY_NS = 86400 * 10**9


class Recorded(LocalStore):
    """The real store, which notes what it was asked to do."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.calls: list[tuple[str, str]] = []

    async def create(self, key: str, data: bytes | memoryview, *, durable: bool = True) -> None:
        self.calls.append(("create", key))
        await super().create(key, data, durable=durable)

    async def sync(self) -> None:
        self.calls.append(("sync", ""))
        await super().sync()

    async def delete(self, key: str) -> None:
        self.calls.append(("delete", key))
        await super().delete(key)


async def shop(start_server: StartServer, folder: Path) -> tuple[Recorded, Repository]:
    server = await start_server()
    store = Recorded(folder)
    async with connected(server) as js:
        await js.create_stream({"name": "ORDERS", "subjects": ["orders.>"], "storage": "file"})
        async with Publisher(server.url) as publisher:
            await publisher.store_all((f"orders.{at % 3}", b"%d" % at, b"") for at in range(50))
        repository = await Repository.create(store, now_ns=time.time_ns)
        await back_up(js, repository, BackupOptions(label="first"), emit=quiet, now_ns=time.time_ns)
    return store, repository


async def test_commit_last(start_server: StartServer, tmp_path: Path) -> None:
    store, _ = await shop(start_server, tmp_path / "r")
    made = [(verb, key.split("/")[0] if "/manifests/" not in key and "/segments/" not in key else key.split("/")[4])
            for verb, key in store.calls if verb in ("create", "sync")]  # fmt: skip
    order = [one for one in made if one[1] in ("segments", "manifests", "backups", "")]
    assert order[-4:] == [("create", "segments"), ("create", "manifests"), ("sync", ""), ("create", "backups")]


async def test_never_overwrite(tmp_path: Path) -> None:
    await small_repository(tmp_path)
    store = LocalStore(tmp_path)
    for path in objects(tmp_path):
        before = path.read_bytes()
        with pytest.raises(AlreadyThereError):
            await store.create(path.relative_to(tmp_path).as_posix(), b"other")
        assert path.read_bytes() == before


async def test_covered(tmp_path: Path) -> None:
    """Each object that backup two needs is proven on the way: change one byte of any, and nothing is read."""
    await small_repository(tmp_path, labels=("two",))
    for path in objects(tmp_path):
        right = path.read_bytes()
        path.write_bytes(right[:-3] + bytes([right[-3] ^ 1]) + right[-2:])
        with pytest.raises(BadDataError):
            await read_all(tmp_path)
        path.write_bytes(right)


async def test_read_only_source(start_server: StartServer, tmp_path: Path) -> None:
    server = await start_server()
    async with connected(server) as js:
        for name, retention, storage in (
            ("A", "limits", "file"),
            ("B", "workqueue", "file"),
            ("C", "limits", "memory"),
        ):
            config = {"name": name, "subjects": [f"{name}.>"], "retention": retention, "storage": storage}
            await js.create_stream(config)
            await consumer(js, name, "c")
        async with Publisher(server.url) as publisher:
            await publisher.store_all((f"{name}.x", b"1", b"") for name in "ABC" for _ in range(20))

        async def look() -> list[object]:
            infos = (await js.stream_list()).infos
            consumers = [await js.consumers(name) for name in "ABC"]
            return [[(one["config"], one["state"], one["created"]) for one in infos],
                    [[(one["name"], one["config"], one["delivered"], one["ack_floor"]) for one in all_] for all_ in consumers]]  # fmt: skip

        before = await look()
        await keep(js, tmp_path)
        assert await look() == before


async def test_one_timeline(start_server: StartServer, tmp_path: Path) -> None:
    server = await start_server()
    async with connected(server) as js:
        lives = []
        for _ in range(2):
            await js.create_stream({"name": "A", "subjects": ["a.>"], "storage": "file"})
            async with Publisher(server.url) as publisher:
                await publisher.store("a.x", b"1", b"")
            lives += [(await keep(js, tmp_path)).manifests[0], (await keep(js, tmp_path)).manifests[0]]
            await js.delete_stream("A")
    assert lives[0].timeline == lives[1].timeline
    assert lives[2].timeline == lives[3].timeline
    assert lives[0].timeline != lives[2].timeline
    for manifest in lives:
        assert all(f"/{manifest.timeline}/" in ref.key for ref in manifest.segments)


async def test_no_silent_gap(start_server: StartServer, tmp_path: Path) -> None:
    server = await start_server()
    async with connected(server) as js:
        await js.create_stream({"name": "A", "subjects": ["a.>"], "storage": "file"})
        async with Publisher(server.url) as publisher:
            await publisher.store_all(("a.x", b"1", b"") for _ in range(30))
        for seq in (3, 4, 20):
            await js.request("STREAM.MSG.DELETE.A", {"seq": seq})
        manifest = (await keep(js, tmp_path)).manifests[0]
    assert SequenceSet.decode(manifest.deleted) == SequenceSet.of([3, 4, 20])
    assert not_live(manifest).count() + manifest.messages == 30
    manifest.messages -= 1
    with pytest.raises(BadDataError):
        not_live(manifest)


async def test_delete_order(start_server: StartServer, tmp_path: Path) -> None:
    store, repository = await shop(start_server, tmp_path / "r")
    server = await start_server()
    async with connected(server) as js:
        await js.create_stream({"name": "OTHER", "subjects": ["other"], "storage": "file"})
        await back_up(js, repository, BackupOptions(label="second"), emit=quiet, now_ns=time.time_ns)
    store.calls.clear()
    policy = Policy(last=1)
    async with lease(store, "read", now_ns=time.time_ns, labels=["first"]):
        held = await expire(repository, policy, now_ns=time.time_ns, emit=quiet, grace_ns=-DAY_NS)
        assert held.expired == []
        assert held.held == ["first"]
    report = await expire(repository, policy, now_ns=time.time_ns, emit=quiet, grace_ns=-DAY_NS)
    assert report.expired == ["first"]
    kinds = [
        "backup" if key == layout.backup_key("first") else "manifest" if "/manifests/" in key else "segment"
        for verb, key in store.calls
        if verb == "delete" and not key.startswith((layout.LEASES, layout.PINS))
    ]
    assert kinds == sorted(kinds, key=["backup", "manifest", "segment"].index)
    assert kinds[0] == "backup"


async def test_truthful_status(start_server: StartServer, tmp_path: Path) -> None:
    """A backup that lacks a stream is not complete; one that read nothing at all is not committed."""
    server = await start_server("2.10.26")
    async with connected(server) as js:
        await js.create_stream({"name": "A", "subjects": ["a"], "storage": "file"})
        await js.create_stream({"name": "ODD", "subjects": ["odd.>"], "storage": "memory"})
        async with Publisher(server.url) as publisher:
            await publisher.store("a", b"1", b"")
            await publisher.store(b"odd.\xff", b"1", b"")  # memory, 2.10, no direct get: no road carries this subject
        repository = await Repository.create(LocalStore(tmp_path / "r"), now_ns=time.time_ns)
        report = await back_up(js, repository, BackupOptions(), emit=quiet, now_ns=time.time_ns)
        assert report.backup.status == "partial"
        assert [(one.name, one.status) for one in report.backup.streams] == [("A", "complete"), ("ODD", "failed")]
        assert report.failed["ODD"].code == "nats.subject"


async def test_duckdb_reads_the_segments_of_a_fresh_backup(start_server: StartServer, tmp_path: Path) -> None:
    """With the query of docs/format.md."""
    await shop(start_server, tmp_path / "r")
    page = (Path(__file__).parents[2] / "docs/format.md").read_text()
    query = page.split("-- DuckDB\n")[1].split("```")[0].replace("'sources/", f"'{tmp_path}/r/sources/")
    query = query.replace("BETWEEN 100 AND 200", "BETWEEN 10 AND 20").strip().rstrip(";")
    # As text: Python needs a time zone library for the others.
    rows = duckdb.connect().execute(f"SELECT * REPLACE (ts::VARCHAR AS ts) FROM ({query})").fetchall()
    assert [row[0] for row in rows] == list(range(10, 21))
    assert rows[0][2] == "orders.0"
    assert rows[0][3] == 1
