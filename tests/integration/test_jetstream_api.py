from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest

from jetkeep.config import ConnectionSettings
from jetkeep.errors import ApiError, ServerError
from jetkeep.jetstream import JetStream, connect
from jetkeep.sandbox import Sandbox, SandboxCluster
from tests.conftest import StartServer
from tests.publisher import Publisher


def reach(url: str, **more: Any) -> contextlib.AbstractAsyncContextManager[JetStream]:
    return connect(ConnectionSettings(servers=tuple(url.split(",")), timeout_s=5.0, **more))


async def create_streams(url: str, count: int) -> list[str]:
    names = [f"S{at:04d}" for at in range(count)]
    async with Publisher(url) as publisher:
        for name in names:
            await publisher.create(name, storage="memory")
    return names


async def test_all_streams_are_listed_beyond_one_page(any_server: Sandbox) -> None:
    names = await create_streams(any_server.url, 300)
    async with reach(any_server.url) as js:
        listing = await js.stream_list()
    assert sorted(info["config"]["name"] for info in listing.infos) == names
    assert (listing.total, listing.offline) == (300, {})


@pytest.mark.large
async def test_a_thousand_streams_are_listed(any_server: Sandbox) -> None:
    names = await create_streams(any_server.url, 1000)
    async with reach(any_server.url) as js:
        began = time.monotonic()
        listing = await js.stream_list()
        assert time.monotonic() - began < 5
    assert sorted(info["config"]["name"] for info in listing.infos) == names


async def test_an_account_without_streams(any_server: Sandbox) -> None:
    async with reach(any_server.url) as js:
        assert (await js.stream_list()).infos == []


async def test_all_consumers_are_listed_beyond_one_page(any_server: Sandbox) -> None:
    async with Publisher(any_server.url) as publisher:
        await publisher.create("S", storage="memory")
        for at in range(300):
            await publisher.create_consumer("S", f"C{at:03d}")
    async with reach(any_server.url) as js:
        assert sorted(one["name"] for one in await js.consumers("S")) == [f"C{at:03d}" for at in range(300)]


async def test_a_stream_whose_server_is_down_is_listed_as_unreachable(cluster: SandboxCluster) -> None:
    async with Publisher(cluster.url) as publisher:
        for at in range(6):
            await publisher.create(f"S{at}", num_replicas=1 if at % 2 else 3)
        home = (await publisher.info("S1"))["cluster"]["leader"]
        singles = {name: (await publisher.info(name))["cluster"]["leader"] for name in ("S1", "S3", "S5")}
    down = {name for name, where in singles.items() if where == home}
    node = cluster.servers[int(home.removeprefix("node-")) - 1]
    node.kill()
    await cluster.settle()
    alive = ",".join(server.url for server in cluster.servers if server is not node)
    async with reach(alive) as js:
        for _ in range(20):
            listing = await js.stream_list()
            if set(listing.offline) == down:
                break
            await asyncio.sleep(0.25)
        assert listing.total == 6
        assert set(listing.offline) == down
        assert {info["config"]["name"] for info in listing.infos} == {f"S{at}" for at in range(6)} - down
        assert "offline" in listing.why_unreachable(min(down)).what


async def test_errors_of_the_api_carry_their_code(any_server: Sandbox) -> None:
    async with reach(any_server.url) as js:
        with pytest.raises(ApiError, match="stream not found") as caught:
            await js.stream_info("NONE")
        assert (caught.value.status, caught.value.err_code, caught.value.exit_status) == (404, 10059, 20)
        assert await js.find_stream("NONE") is None
        await js.delete_stream("NONE")
        created = await js.create_stream({"name": "S", "subjects": ["S"], "storage": "file"})
        updated = await js.update_stream({**created["config"], "description": "new"})
        assert updated["config"]["description"] == "new"


@pytest.mark.parametrize(
    "subject",
    [
        "$JS.API.INFO",
        "$JS.API.STREAM.LIST",
        "$JS.API.STREAM.INFO.S",
        "$JS.API.STREAM.SNAPSHOT.S",
        "$JS.API.CONSUMER.LIST.S",
        "$JS.API.STREAM.RESTORE.S",
        "$JS.API.STREAM.UPDATE.S",
        "$JS.API.STREAM.DELETE.S",
    ],
)
async def test_a_refused_request_is_named_at_once_and_no_time_out(start_server: StartServer, subject: str) -> None:
    denied = {"publish": {"deny": [subject]}}
    server = await start_server(
        config={"authorization": {"users": [{"user": "ann", "password": "pw", "permissions": denied}]}}
    )
    async with reach(server.url, user="ann", password="pw") as js:
        began = time.monotonic()
        with pytest.raises(ServerError) as caught:
            await js.request(subject.removeprefix("$JS.API."), {"name": "S"})
        assert caught.value.code == "nats.permission"
        assert subject in caught.value.what
        assert time.monotonic() - began < 2
        # Others go on to work on the same connection.
        other = "INFO" if subject != "$JS.API.INFO" else "STREAM.LIST"
        assert "error" not in await js.request(other)


async def test_permissions_can_be_tried(start_server: StartServer) -> None:
    permissions = {"publish": {"deny": ["$JS.SNAPSHOT.ACK.>"]}, "subscribe": {"deny": ["mine.>"]}}
    server = await start_server(
        config={"authorization": {"users": [{"user": "ann", "password": "pw", "permissions": permissions}]}}
    )
    async with reach(server.url, user="ann", password="pw") as js:
        assert await js.may_publish("$JS.SNAPSHOT.RESTORE.S.x") is None
        assert "$JS.SNAPSHOT.ACK.S.x" in (await js.may_publish("$JS.SNAPSHOT.ACK.S.x") or ValueError()).args[0]
        assert await js.may_subscribe("_INBOX.x") is None
        assert await js.may_subscribe("mine.x") is not None


async def test_a_frozen_server_is_a_time_out_in_words(server: Sandbox) -> None:
    async with connect(ConnectionSettings(servers=(server.url,), timeout_s=0.5)) as js:
        server.pause()
        with pytest.raises(ServerError, match=r"no answer on \$JS\.API\.INFO within 0\.5 s") as caught:
            await js.account_info()
        assert caught.value.retryable
    server.resume()


async def test_a_node_that_dies_is_left_for_another(cluster: SandboxCluster) -> None:
    async with reach(cluster.url) as js:
        at = js.server_facts()["name"]
        next(server for server in cluster.servers if f"node-{cluster.servers.index(server) + 1}" == at).kill()
        deadline = time.monotonic() + 15
        while True:
            try:
                await js.account_info()
                break
            except ServerError as failure:
                if not failure.retryable or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
        assert js.server_facts()["name"] != at


async def test_what_the_server_says_of_itself(start_server: StartServer) -> None:
    server = await start_server("2.12.8", {"server_name": "mine", "max_payload": 5000, "jetstream": {"domain": "D"}})
    async with reach(server.url) as js:
        assert js.server_version == "2.12.8"
        assert js.max_payload == 5000
        facts = js.server_facts()
        assert (facts["name"], facts["domain"]) == ("mine", "D")


async def test_a_request_larger_than_the_server_takes_is_named(start_server: StartServer) -> None:
    server = await start_server(config={"max_payload": 5000})
    async with reach(server.url) as js:
        with pytest.raises(ServerError, match="5,000") as caught:
            await js.create_stream({"name": "S", "description": "x" * 6000})
        assert caught.value.code == "nats.max-payload"
