"""all-or-nothing restore: a stream that was not restored completely and compared takes no publishes and is removed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jetkeep.errors import ComparisonError, JetkeepError, ServerError
from jetkeep.jetstream import JetStream
from jetkeep.model import Event, StreamAdvanced
from jetkeep.restore.decisions import RestoreOptions
from jetkeep.restore.run import restore
from jetkeep.restore.stage import CLAIM
from jetkeep.sandbox import Sandbox
from tests.conftest import StartServer
from tests.restoring import Kept, connected, consumer, fetch, keep, put_back, quiet, state_of

ENDS = ("2.10.26", "2.15.1")
COUNT = 3000


async def filled(server: Sandbox, folder: Path, storage: str = "file") -> tuple[Kept, list[object]]:
    """A stream of several megabytes with a consumer, backed up and gone; what its ends held."""
    async with connected(server) as js:
        await js.create_stream({"name": "S", "subjects": ["s.>"], "storage": storage})
        for at in range(COUNT):
            await js.client.publish(f"s.{at % 7}", bytes([at % 256]) * 2000)
        while (await state_of(js, "S"))[0] < COUNT:
            await asyncio.sleep(0.02)
        await consumer(js, "S", "C")
        await fetch(js, "S", "C", 5, (0, 2))
        kept = await keep(js, folder)
        told: list[object] = [await state_of(js, "S")]
        await js.delete_stream("S")
    return kept, told


async def takes_no_publish(js: JetStream) -> bool:
    """Nobody stores what is published to the stream's subjects."""
    try:
        await js.ask("s.1", b"intruder", timeout_s=2)
    except ServerError:
        return True
    return False


async def nothing_is_live(js: JetStream, told: list[object]) -> None:
    """Nothing takes publishes; or the stream was opened already, and then it is whole."""
    info = await js.find_stream("S")
    if info is None or CLAIM in (info["config"].get("metadata") or {}):
        assert await takes_no_publish(js)
        return
    assert [await state_of(js, "S")] == told
    await js.delete_stream("S")


async def nothing_is_left(js: JetStream) -> None:
    deadline = time.monotonic() + 7
    while time.monotonic() < deadline:
        assert await js.find_stream("S") is None
        await asyncio.sleep(0.5 if time.monotonic() < deadline - 6 else 2)
    assert await takes_no_publish(js)


async def restores(js: JetStream, kept: Kept, told: list[object]) -> None:
    await put_back(js, kept)
    assert [await state_of(js, "S")] == told


@pytest.mark.parametrize("storage", ["file", "memory"])
@pytest.mark.parametrize("version", ENDS)
async def test_cancelled_at_any_moment_nothing_is_left(
    version: str, storage: str, start_server: StartServer, tmp_path: Path
) -> None:
    if storage == "memory" and version != ENDS[1]:
        pytest.skip("this server restores no memory storage")
    server = await start_server(version)
    kept, told = await filled(server, tmp_path, storage)
    async with connected(server) as js:
        began = time.monotonic()
        await restores(js, kept, told)
        whole = time.monotonic() - began
        await js.delete_stream("S")
        for part in range(8):
            task = asyncio.create_task(restore(kept.repository, js, kept.manifests, RestoreOptions(), emit=quiet))
            await asyncio.sleep(whole * part / 8)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await nothing_is_live(js, told)
            assert await js.find_stream("S") is None
        await nothing_is_left(js)
        await restores(js, kept, told)


SCRIPT = """
import asyncio, sys, time
from pathlib import Path
from jetkeep.catalog import choose_streams, find_backup
from jetkeep.config import ConnectionSettings
from jetkeep.jetstream import connect
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.restore.decisions import RestoreOptions
from jetkeep.restore.run import restore

def tell(event):
    print(event, flush=True)
    time.sleep(0.2)  # whoever kills this process does it here

async def main(url, folder):
    async with connect(ConnectionSettings(servers=(url,))) as js:
        repository = await Repository.open(LocalStore(Path(folder)))
        chosen = await choose_streams(repository, await find_backup(repository, None))
        print("ready", flush=True)
        manifests = [one.manifest for one in chosen]
        await restore(repository, js, manifests, RestoreOptions(), emit=tell)
        print("done", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def killed_after(server: Sandbox, folder: Path, lines: int) -> None:
    """Run a restore in a process of its own and kill it after so many events."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SCRIPT, server.url, str(folder), stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    assert process.stdout
    for _ in range(lines):
        await process.stdout.readline()
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    await process.wait()


@pytest.mark.parametrize("storage", ["file", "memory"])
@pytest.mark.parametrize("version", ENDS)
async def test_killed_at_any_event_what_is_left_is_closed_and_the_next_run_removes_it(
    version: str, storage: str, start_server: StartServer, tmp_path: Path
) -> None:
    if storage == "memory" and version != ENDS[1]:
        pytest.skip("this server restores no memory storage")
    server = await start_server(version)
    kept, told = await filled(server, tmp_path, storage)
    removed = 0
    for lines in (2, 4, 5, 6, 7):
        await killed_after(server, tmp_path, lines)
        async with connected(server) as js:
            await nothing_is_live(js, told)
            report = await put_back(js, kept)
            removed += any("unfinished" in note for note in report.streams[0].notes)
            assert [await state_of(js, "S")] == told
            await js.delete_stream("S")
    assert removed, "no kill hit the moment in which the stream is there and closed"


def at_compare(act: Callable[[], None]) -> Callable[[Event], None]:
    """Call `act` once, when the restored stream begins to be read back."""
    done: list[int] = []

    def emit(event: Event) -> None:
        if isinstance(event, StreamAdvanced) and event.phase == "restore" and event.messages == COUNT and not done:
            done.append(1)
            act()

    return emit


@pytest.mark.parametrize("what", ["message", "surplus", "consumer"])
@pytest.mark.parametrize("version", ENDS)
async def test_what_does_not_compare_is_removed(
    version: str, what: str, start_server: StartServer, tmp_path: Path
) -> None:
    server = await start_server(version)
    kept, _ = await filled(server, tmp_path)
    async with connected(server) as js, connected(server) as other:

        async def meddle() -> None:
            while await other.find_stream("S") is None:
                await asyncio.sleep(0)
            if what == "message":
                await other.request("STREAM.MSG.DELETE.S", {"seq": 77, "no_erase": True})
            elif what == "surplus":
                await other.client.request("_restore.S", b"intruder")
            else:
                await other.request("CONSUMER.DELETE.S.C")

        tasks: list[asyncio.Task[None]] = []
        slow = await _slowed(js)
        emit = at_compare(lambda: tasks.append(asyncio.create_task(meddle())))
        report = await restore(kept.repository, slow, kept.manifests, RestoreOptions(), emit=emit)
        await asyncio.gather(*tasks)
        error = report.streams[0].error
        assert isinstance(error, ComparisonError), error
        assert error.exit_status == 31
        assert report.status == "failed"
        await nothing_is_left(js)


async def _slowed(js: JetStream) -> JetStream:
    """The same connection; every snapshot waits a moment, so that a test can meddle before it."""
    snapshot = js.snapshot

    class Later:
        def __init__(self, stream: str) -> None:
            self._inner = snapshot(stream)

        async def __aenter__(self) -> object:
            await asyncio.sleep(0.5)
            return await self._inner.__aenter__()

        async def __aexit__(self, *error: Any) -> None:
            await self._inner.__aexit__(*error)

    later: Any = Later
    js.snapshot = later  # type: ignore[method-assign]
    return js


async def test_streams_of_others_are_never_removed(server: Sandbox, tmp_path: Path) -> None:
    """Unfinished restores of another repository, or of a run that lives, and ordinary streams stay as they are."""
    kept, told = await filled(server, tmp_path)
    async with connected(server) as js:
        for claim in ("0" * 32 + "/1234", ""):
            metadata = {CLAIM: claim} if claim else {}
            await js.create_stream({"name": "S", "subjects": ["_restore.S"], "metadata": metadata})
            with pytest.raises(JetkeepError) as refused:
                await put_back(js, kept)
            assert refused.value.code == ("restore.in-progress" if claim else "restore.exists")
            assert await js.find_stream("S") is not None
            await js.delete_stream("S")
        await restores(js, kept, told)


@pytest.mark.parametrize("version", ENDS)
async def test_the_server_is_killed_in_the_middle_and_comes_back(
    version: str, start_server: StartServer, tmp_path: Path
) -> None:
    server = await start_server(version)
    kept, told = await filled(server, tmp_path)
    for part in (2, 4):
        async with connected(server) as js:
            seen: list[Event] = []
            task = asyncio.create_task(restore(kept.repository, js, kept.manifests, RestoreOptions(), emit=seen.append))
            while len(seen) < part and not task.done():
                await asyncio.sleep(0)
            server.kill()
            with contextlib.suppress(JetkeepError):
                report = await task
                assert report.status != "complete" or part > 2
        await server.start()
        async with connected(server) as js:
            await nothing_is_live(js, told)
            await restores(js, kept, told)
            await js.delete_stream("S")
