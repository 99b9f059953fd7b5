"""Every source version to every target version: each message, bound and consumer position, by the server's API."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from jetkeep.jetstream import JetStream
from jetkeep.restore.fields import Version
from tests.conftest import StartServer
from tests.matrix.shop import fill, look
from tests.restoring import Kept, connected, keep, put_back
from tests.versions import VERSIONS

Seen = dict[str, Any]
#: What is known not to be exact, and named by the backup's notes or the restore's plan.
INFERRED = {("2.10", "WORK"), ("2.11", "WORK"), ("2.10", "INTEREST"), ("2.11", "INTEREST")}


async def shop(start_server: StartServer, version: str, folder: Path) -> tuple[Kept, Seen]:
    server = await start_server(version)
    async with connected(server) as js:
        release = Version.of(version)[:2]
        names = await fill(js, server.url, release)
        await asyncio.sleep(1)  # mirrors and sources follow on their own
        seen = {name: await look(js, name) for name in names}
        kept = await keep(js, folder)
    await server.stop()
    return kept, seen


async def compare(js: JetStream, seen: Seen, source: str, *, names: list[str]) -> None:
    for name in names:
        numbers, messages, consumers = await look(js, name)
        was_numbers, was_messages, was_consumers = seen[name]
        assert numbers == was_numbers, name
        assert messages == was_messages, name
        if (str(Version.of(source)), name) in INFERRED:
            assert consumers.keys() == was_consumers.keys(), name
        else:
            assert consumers == was_consumers, name


async def there_and_back(start_server: StartServer, folder: Path, source: str, targets: list[str]) -> None:
    kept, seen = await shop(start_server, source, folder)
    for version in targets:
        target = await start_server(version)
        wanted = kept
        if Version.of(version) < Version(2, 15):
            # No server before 2.15 restores memory storage: the plan refuses it by name.
            wanted = kept.only(*(one.stream for one in kept.manifests if one.stream != "MEMORY"))
        names = [one.stream for one in wanted.manifests]
        async with connected(target) as js:
            await put_back(js, wanted, accept_loss=True)
            await compare(js, seen, source, names=names)
        await target.restart()
        durable = [name for name in names if name != "MEMORY"]
        async with connected(target) as js:
            await compare(js, seen, source, names=durable)
        await target.stop()


@pytest.mark.matrix
@pytest.mark.timeout(600)
@pytest.mark.parametrize("source", VERSIONS)
async def test_every_message_and_position_comes_back(start_server: StartServer, tmp_path: Path, source: str) -> None:
    await there_and_back(start_server, tmp_path, source, list(VERSIONS))


@pytest.mark.parametrize(("source", "target"), [("2.10.26", "2.15.1"), ("2.15.1", "2.10.26")])
async def test_up_and_down(start_server: StartServer, tmp_path: Path, source: str, target: str) -> None:
    await there_and_back(start_server, tmp_path, source, [target])
