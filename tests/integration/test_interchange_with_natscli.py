"""The official CLI and jetkeep read each other's directories, on real servers of every version."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from jetkeep.catalog import choose_streams
from jetkeep.codecs.snapshot import Form
from jetkeep.interchange.exporting import export_stream
from jetkeep.interchange.importing import ImportOptions, import_directory
from jetkeep.jetstream import JetStream
from jetkeep.repository.documents import ConsumerDoc, Manifest
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.sandbox import Sandbox
from tests.conftest import StartServer
from tests.publisher import Publisher, header_block
from tests.restoring import Kept, connected, consumer, fetch, keep, quiet
from tests.versions import NEWEST, VERSIONS

pytestmark = pytest.mark.natscli

NATSCLI = os.environ.get("NATSCLI") or shutil.which("nats") or str(Path("~/go/bin/nats").expanduser())


@pytest.fixture(autouse=True)
def _needs_natscli() -> None:
    if not Path(NATSCLI).is_file():
        pytest.skip("there is no official CLI: give its path in NATSCLI, or put `nats` on the PATH")


async def nats(server: Sandbox | None, *words: str) -> str:
    at = ["-s", server.url] if server else []
    done = await asyncio.to_thread(
        subprocess.run, [NATSCLI, "--no-context", *at, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


async def fill(server: Sandbox, js: JetStream, *, storage: str = "file", count: int = 3000) -> None:
    """SHOP with deletes, a purge, removals by limits, headers, bytes that are no text, consumers; and two empty ones."""
    async with Publisher(server.url) as publisher:
        await publisher.create("SHOP", subjects=["shop.>"], storage=storage, max_msgs=count - 200)
        repeated = header_block(("A", "1"), ("b", "x"), ("A", "2"))
        await publisher.store_all(
            (f"shop.{at % 17}", os.urandom(at % 700), repeated if at % 3 == 0 else b"") for at in range(count)
        )
        # Memory streams of older servers are read through an API that cannot say such a subject.
        await publisher.store(b"shop.\xff\xfe" if storage == "file" else b"shop.x", b"\x00\xff")
        await publisher.store("shop.last", b"")
        for seq in (count - 90, count - 89, count - 50, count + 2):
            await publisher.delete("SHOP", seq)
        await publisher.ask("$JS.API.STREAM.PURGE.SHOP", {"filter": "shop.3"})
        await publisher.create("EMPTY", subjects=["empty"], storage=storage)
        await publisher.create("GONE", subjects=["gone"], storage=storage)
        await publisher.store("gone", b"x")
        await publisher.ask("$JS.API.STREAM.PURGE.GONE")
    await consumer(js, "SHOP", "all")
    await consumer(js, "SHOP", "one", filter_subject="shop.1")
    await consumer(js, "SHOP", "unused")
    await fetch(js, "SHOP", "all", 40, acks=(*range(10), 20, 30))
    await fetch(js, "SHOP", "one", 5, acks=range(5))


async def bring_in(directory: Path, folder: Path) -> Kept:
    repository = await Repository.open_or_create(LocalStore(folder), now_ns=time.time_ns)
    report = await import_directory(directory, repository, ImportOptions(), emit=quiet, now_ns=time.time_ns)
    assert not report.failed
    return Kept(repository, [one.manifest for one in await choose_streams(repository, report.backup)])


async def take_out(kept: Kept, folder: Path, form: Form) -> list[str]:
    """Export every stream as an account's directory; returns the notes."""
    notes = []
    for manifest in kept.manifests:
        report = await export_stream(kept.repository, manifest, folder / manifest.stream, form, emit=quiet)
        notes += report.notes
    return notes


def same(one: Kept, other: Kept) -> None:
    """Equal messages, bounds and consumers, by the manifests."""
    assert [m.stream for m in one.manifests] == [m.stream for m in other.manifests]
    for left, right in zip(one.manifests, other.manifests, strict=True):
        assert facts(left) == facts(right)
        assert positions(left) == positions(right)


def facts(manifest: Manifest) -> tuple[object, ...]:
    return manifest.messages, manifest.first_seq, manifest.last_seq, manifest.fingerprint, manifest.deleted


def positions(manifest: Manifest) -> dict[str, Any]:
    """The consumers' states. A floor below the first message is where the first message is; tars have whole seconds."""

    def one(doc: ConsumerDoc) -> tuple[object, ...]:
        state = doc.record().state.within(manifest.first_seq, manifest.last_seq)
        pending = {seq: (entry.consumer_seq, entry.ts // 10**9) for seq, entry in state.pending.items()}
        return state.delivered, state.ack_floor, pending, state.redelivered, doc.config.get("filter_subject")

    return {doc.name: one(doc) for doc in manifest.consumers}


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_the_official_cli_backs_up_is_imported_as_jetkeep_captures_it(
    version: str, start_server: StartServer, tmp_path: Path
) -> None:
    server = await start_server(version)
    async with connected(server) as js:
        await fill(server, js)
        captured = await keep(js, tmp_path / "captured")
    await nats(server, "backup", "account", str(tmp_path / "account"), "--force")
    await nats(server, "backup", "stream", "SHOP", str(tmp_path / "single"), "--no-progress")
    imported = await bring_in(tmp_path / "account", tmp_path / "imported")
    same(captured, imported)
    same(captured.only("SHOP"), await bring_in(tmp_path / "single", tmp_path / "imported-single"))
    assert len(imported.only("SHOP").manifests[0].consumers) == 3


@pytest.mark.parametrize("target", VERSIONS)
@pytest.mark.parametrize("source", [VERSIONS[0], NEWEST])
async def test_the_official_cli_restores_an_export_as_a_tar_to_every_version(
    source: str, target: str, start_server: StartServer, tmp_path: Path
) -> None:
    await _there_and_back(await start_server(source), await start_server(target), "tar", tmp_path)


@pytest.mark.parametrize("source", VERSIONS)
async def test_the_official_cli_restores_an_export_as_an_archive(
    source: str, start_server: StartServer, tmp_path: Path
) -> None:
    await _there_and_back(await start_server(source), await start_server(NEWEST), "archive", tmp_path)


async def _there_and_back(source: Sandbox, target: Sandbox, form: Form, tmp_path: Path) -> None:
    async with connected(source) as js:
        await fill(source, js)
        captured = await keep(js, tmp_path / "captured")
    assert await take_out(captured, tmp_path / "export", form) == []
    source.kill()
    shutil.rmtree(source.store_dir)
    for manifest in captured.manifests:
        if form == "archive":
            await nats(None, "backup", "validate", str(tmp_path / "export" / manifest.stream), "--no-progress")
    await nats(target, "backup", "restore", "account", str(tmp_path / "export"))
    async with connected(target) as js:
        same(captured, await keep(js, tmp_path / "restored"))
    await target.restart()
    async with connected(target) as js:
        same(captured, await keep(js, tmp_path / "restarted"))


@pytest.mark.parametrize("form", ["archive", "tar"])
async def test_a_round_trip_through_both_tools_changes_nothing(
    form: Form, start_server: StartServer, tmp_path: Path
) -> None:
    source, target = await start_server("2.12.8"), await start_server(NEWEST)
    async with connected(source) as js:
        await fill(source, js)
    await nats(source, "backup", "account", str(tmp_path / "first"), "--force")
    first = await bring_in(tmp_path / "first", tmp_path / "repo")
    await take_out(first, tmp_path / "export", form)
    await nats(target, "backup", "restore", "account", str(tmp_path / "export"))
    await nats(target, "backup", "account", str(tmp_path / "second"), "--force")
    same(first, await bring_in(tmp_path / "second", tmp_path / "repo"))


@pytest.mark.parametrize("form", ["archive", "tar"])
async def test_jetkeep_imports_its_own_exports(form: Form, server: Sandbox, tmp_path: Path) -> None:
    async with connected(server) as js:
        await fill(server, js)
        captured = await keep(js, tmp_path / "captured")
    await take_out(captured, tmp_path / "export", form)
    same(captured, await bring_in(tmp_path / "export", tmp_path / "imported"))


async def test_the_bytes_that_an_export_asks_for_are_those_that_the_server_counts(
    server: Sandbox, tmp_path: Path
) -> None:
    async with connected(server) as js:
        await fill(server, js)
        captured = (await keep(js, tmp_path / "captured")).only("SHOP")
        counted = (await js.stream_info("SHOP"))["state"]["bytes"]
    captured.manifests[0].state["bytes"] = 0  # so that the export has to look at the messages
    await take_out(captured, tmp_path / "export", "archive")
    state = json.loads((tmp_path / "export" / "SHOP" / "backup.json").read_text())["state"]
    assert state["bytes"] == counted
    told = json.loads(await nats(None, "backup", "info", str(tmp_path / "export" / "SHOP"), "--json"))
    assert told["bytes"] == told["declared"]["bytes"] == counted


@pytest.mark.parametrize(("form", "storage"), [("archive", "memory"), ("tar", "file")])
async def test_a_memory_stream_comes_back_whole_in_either_form(
    form: Form, storage: str, start_server: StartServer, tmp_path: Path
) -> None:
    source, target = await start_server("2.11.11"), await start_server(NEWEST)
    async with connected(source) as js:
        await fill(source, js, storage="memory", count=500)
        captured = (await keep(js, tmp_path / "captured")).only("SHOP")
    notes = await take_out(captured, tmp_path / "export", form)
    assert len(notes) == (1 if form == "tar" else 0)
    await nats(target, "backup", "restore", "account", str(tmp_path / "export"))
    async with connected(target) as js:
        assert (await js.stream_info("SHOP"))["config"]["storage"] == storage
        restored = await keep(js, tmp_path / "restored")
    assert facts(restored.manifests[0]) == facts(captured.manifests[0])


@pytest.mark.parametrize("target_version", ["2.10.26", "2.11.11"])
async def test_an_export_of_the_newest_server_survives_a_restart_of_one_that_knows_less(
    target_version: str, start_server: StartServer, tmp_path: Path
) -> None:
    """Fields that it does not know, or a level above its own, would take the stream offline when it starts again."""
    source, target = await start_server(NEWEST), await start_server(target_version)
    async with connected(source) as js:
        async with Publisher(source.url) as publisher:
            await publisher.create("SHOP", subjects=["shop.>"], metadata={"team": "a"}, allow_atomic=True)
            await publisher.store("shop.1", b"x")
        captured = await keep(js, tmp_path / "captured")
    assert captured.manifests[0].config["metadata"]["_nats.req.level"] != "0"
    await take_out(captured, tmp_path / "export", "tar")
    await nats(target, "backup", "restore", "account", str(tmp_path / "export"))
    await target.restart()
    async with connected(target) as js:
        info = await js.stream_info("SHOP")
    assert info["state"]["messages"] == 1
    assert info["config"]["metadata"]["team"] == "a"
    assert "description" not in info["config"]


@pytest.mark.parametrize("version", ["2.12.8", NEWEST])
async def test_a_backup_without_its_consumers_is_imported_with_a_note(
    version: str, start_server: StartServer, tmp_path: Path
) -> None:
    server = await start_server(version)
    async with connected(server) as js:
        await fill(server, js)
        captured = (await keep(js, tmp_path / "captured")).only("SHOP")
    await nats(server, "backup", "stream", "SHOP", str(tmp_path / "out"), "--no-progress", "--no-consumers")
    manifest = (await bring_in(tmp_path / "out", tmp_path / "imported")).manifests[0]
    assert facts(manifest) == facts(captured.manifests[0])
    assert manifest.consumers == []
    assert any("had 3 consumers" in note and "holds 0" in note for note in manifest.notes)
