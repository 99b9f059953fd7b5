"""The whole loop with nothing but a bucket, through the command line: no local file is kept, needed, or left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from jetkeep.model import JsonDict
from jetkeep.sandbox import Sandbox
from tests.backing_up import run, told
from tests.conftest import StartServer
from tests.object_stores.emulators import CONTAINER, azurite, fake_gcs, running_azurite, running_gcs
from tests.object_stores.seaweed import Bucket
from tests.publisher import Publisher
from tests.restoring import connected, consumer, fetch, messages, state_of

ORDERS = 1500


@pytest.fixture(autouse=True)
def _nothing_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders in which a trace of local state would show."""
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))


def traces(tmp_path: Path) -> list[Path]:
    return [one for one in tmp_path.rglob("*") if one.is_file()]


async def fill(url: str) -> None:
    async with Publisher(url) as publisher:
        await publisher.create("ORDERS", storage="file")
        await publisher.create("WORK", storage="file", retention="workqueue")
        await publisher.create("EMPTY", storage="file")
        await publisher.store_all((f"ORDERS.{at % 5}", b"order %d" % at, b"") for at in range(ORDERS))
        await publisher.store_all(("WORK.mail", b"job %d" % at, b"") for at in range(40))
        await publisher.delete("ORDERS", 7, 8, 500)


async def publish_more(url: str) -> None:
    async with Publisher(url) as publisher:
        await publisher.store_all((f"ORDERS.{at % 5}", b"later %d" % at, b"") for at in range(200))


async def everything_at(server: Sandbox) -> JsonDict:
    """What clients can tell of the streams and their consumers."""
    found = {}
    async with connected(server) as js:
        for name in ("ORDERS", "WORK", "EMPTY"):
            consumers = [
                (one["name"], one["ack_floor"]["stream_seq"], one["num_pending"], one["num_ack_pending"])
                for one in await js.consumers(name)
            ]
            found[name] = (await state_of(js, name), await messages(js, name), consumers)
    return found


def test_with_the_bucket_alone_everything_comes_back(start_server: StartServer, bucket: Bucket, tmp_path: Path) -> None:
    the_loop(start_server, bucket.url, tmp_path)


@pytest.mark.stores
@pytest.mark.parametrize("scheme", ["az", "gs"])
def test_the_same_with_a_container_at_azure_and_a_bucket_at_google(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    if (program := azurite() if scheme == "az" else fake_gcs()) is None:
        pytest.skip("not installed: python -m tests.object_stores.emulators")
    with running_azurite(program) if scheme == "az" else running_gcs(program) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        the_loop(start_server, f"{scheme}://{CONTAINER}/a/prefix", tmp_path)


def the_loop(start_server: StartServer, url: str, tmp_path: Path) -> None:
    source = asyncio.run(start_server())
    asyncio.run(fill(source.url))

    async def consume() -> None:
        async with connected(source) as js:
            await consumer(js, "ORDERS", "billing")
            await fetch(js, "ORDERS", "billing", 10, acks=(0, 1, 2, 5))

    asyncio.run(consume())
    assert "first" in run("backup", "--label", "first", repo=url, url=source.url).stdout
    asyncio.run(publish_more(source.url))
    run("backup", "--label", "second", repo=url, url=source.url)
    before = asyncio.run(everything_at(source))
    source.kill()
    assert not traces(tmp_path)

    listed = told(run("info", "--json", repo=url))
    assert [one["label"] for one in listed["backups"]] == ["first", "second"]
    assert told(run("verify", "--json", repo=url))["findings"] == []
    assert run("cat", "ORDERS", "--seq", "1501", "--raw", repo=url).stdout == "later 0"
    run("export", "ORDERS", str(tmp_path / "exported"), repo=url)
    assert (tmp_path / "exported" / "backup.json").exists()
    run("drill", "--backup", "latest", repo=url)
    run("expire", "--keep-last", "1", repo=url)
    assert [one["label"] for one in told(run("info", "--json", repo=url))["backups"]] == ["second"]
    # What nobody names any more waits for a day before it goes.
    assert {one["kind"] for one in told(run("verify", "--json", repo=url))["findings"]} <= {"unnamed"}

    target = asyncio.run(start_server())
    run("restore", repo=url, url=target.url)
    assert asyncio.run(everything_at(target)) == before
