"""What the plan foretells becomes true: each cause of loss, on the versions that differ in it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jetkeep.errors import CannotRestoreError
from jetkeep.jetstream import JetStream
from jetkeep.restore.decisions import Loss
from jetkeep.restore.fields import BATCHED, TTL, Version
from jetkeep.sandbox import Sandbox
from tests.conftest import StartServer
from tests.restoring import SECOND, Kept, connected, consumer, keep, planned, publish, put_back, state_of

STREAM = {"name": "S", "subjects": ["s.>"], "storage": "file"}


async def ten(js: JetStream, **headers: str) -> None:
    for at in range(10):
        await publish(js, f"s.{at % 4}", b"x" * 50, **headers)


async def kept_with(js: JetStream, folder: Path, **config: Any) -> Kept:
    """Ten messages, backed up, under a configuration that a user changed in the backup's stead: it drops some of them."""
    await js.create_stream(STREAM)
    await ten(js)
    kept = await keep(js, folder)
    kept.manifests[0].config.update(config)
    await js.delete_stream("S")
    return kept


async def losses(js: JetStream, kept: Kept) -> list[Loss]:
    with pytest.raises(CannotRestoreError):
        await put_back(js, kept)
    assert await js.find_stream("S") is None, "a refused restore changes nothing"
    return list((await planned(js, kept)).steps[0].losses)


LIMITS = {
    "max_msgs": ({"max_msgs": 3}, 7),
    "max_bytes": ({"max_bytes": 300}, 7),
    "max_age": ({"max_age": SECOND // 2, "duplicate_window": SECOND // 2}, 10),
}


@pytest.mark.parametrize("cause", LIMITS)
async def test_limits_drop_what_was_foretold(cause: str, any_server: Sandbox, tmp_path: Path) -> None:
    config, count = LIMITS[cause]
    async with connected(any_server) as js:
        kept = await kept_with(js, tmp_path, **config)
        await asyncio.sleep(0.6)
        assert [(one.cause, one.count) for one in await losses(js, kept)] == [(cause, count)]
        one = (await put_back(js, kept, accept_loss=True)).streams[0]
        assert (one.lost, one.as_foreseen) == (count, True)
        assert await state_of(js, "S") == (10 - count, 1 + count, 10)


@pytest.mark.parametrize("config", [{"max_msgs": 3}, {"max_bytes": 300}], ids=["max_msgs", "max_bytes"])
async def test_discard_new_drops_nothing(config: dict[str, int], any_server: Sandbox, tmp_path: Path) -> None:
    async with connected(any_server) as js:
        kept = await kept_with(js, tmp_path, discard="new", **config)
        report = await put_back(js, kept)
        assert report.streams[0].lost == 0
        assert await state_of(js, "S") == (10, 1, 10)


async def test_limits_per_subject_drop_at_opening_or_at_the_next_restart(any_server: Sandbox, tmp_path: Path) -> None:
    async with connected(any_server) as js:
        kept = await kept_with(js, tmp_path, max_msgs_per_subject=2)
        kept.manifests[0].server_version = "2.12.8"  # newer sources have kept to the limit, so nobody would look
        (loss,) = await losses(js, kept)
        late = Version.of(any_server.version) < BATCHED
        assert (loss.cause, loss.count, loss.when) == ("max_msgs_per_subject", 2, "restart" if late else "open")
        one = (await put_back(js, kept, accept_loss=True)).streams[0]
        assert (one.lost, one.as_foreseen) == (0 if late else 2, True)
        await any_server.restart()
    async with connected(any_server) as js:
        assert await state_of(js, "S") == (8, 3, 10)


async def with_ttls(server: Sandbox, folder: Path, **config: Any) -> Kept:
    async with connected(server) as js:
        await js.create_stream(STREAM | {"allow_msg_ttl": True} | config)
        for at in range(10):
            await publish(js, f"s.{at % 4}", Nats_TTL="1s" if at % 2 else "1h")
        kept = await keep(js, folder)
        await js.delete_stream("S")
        await asyncio.sleep(1.2)
        return kept


@pytest.mark.parametrize("storage", ["file", "memory"])
async def test_messages_whose_own_ttl_has_passed(storage: str, any_server: Sandbox, tmp_path: Path) -> None:
    version = Version.of(any_server.version)
    if version < TTL or (storage == "memory" and version < Version(2, 15)):
        pytest.skip("this server has no such thing")
    kept = await with_ttls(any_server, tmp_path, storage=storage)
    async with connected(any_server) as js:
        assert [(one.cause, one.count) for one in await losses(js, kept)] == [("ttl", 5)]
        one = (await put_back(js, kept, accept_loss=True)).streams[0]
        assert (one.lost, one.as_foreseen) == (5, True)
        assert (await state_of(js, "S"))[0] == 5


async def test_delete_markers_are_appended_as_foretold(any_server: Sandbox, tmp_path: Path) -> None:
    if Version.of(any_server.version) < TTL:
        pytest.skip("this server has no markers")
    kept = await with_ttls(any_server, tmp_path)
    # Set only now: a stream that has it lifts shorter TTLs when it stores a message.
    kept.manifests[0].config.update(subject_delete_marker_ttl=60 * SECOND, allow_rollup_hdrs=True)
    async with connected(any_server) as js:
        plan = await planned(js, kept)
        assert plan.steps[0].forecast.markers == 2
        one = (await put_back(js, kept, accept_loss=True)).streams[0]
        assert (one.lost, one.appended, one.as_foreseen) == (5, 2, True)
        assert await state_of(js, "S") == (7, 1, 12)


def at(seconds: float) -> str:
    return f"@at {datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.parametrize("storage", ["file", "memory"])
async def test_schedules_fire_once_the_stream_is_open_and_not_before(
    storage: str, any_server: Sandbox, tmp_path: Path
) -> None:
    version = Version.of(any_server.version)
    if version < Version(2, 12) or (storage == "memory" and version < Version(2, 15)):
        pytest.skip("this server has no such thing")
    async with connected(any_server) as js:
        config = {"allow_msg_schedules": True, "allow_msg_ttl": True, "allow_rollup_hdrs": True, "storage": storage}
        await js.create_stream(STREAM | config)
        await publish(js, "s.due", Nats_Schedule=at(1.1), Nats_Schedule_Target="s.fired")
        await publish(js, "s.soon", Nats_Schedule=at(7), Nats_Schedule_Target="s.later")
        kept = await keep(js, tmp_path)
        await js.delete_stream("S")
        await asyncio.sleep(2.2)
        plan = await planned(js, kept)
        assert plan.steps[0].forecast.due == 1
        one = (await put_back(js, kept)).streams[0]
        assert (one.lost, one.appended) == (0, 1)
        deadline = asyncio.get_running_loop().time() + 12
        while await state_of(js, "S") != (2, 3, 4) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.2)
        assert await state_of(js, "S") == (2, 3, 4), "the second one fires in its time"


async def test_messages_above_max_payload_are_left_out_of_memory_storage_in_numbers(
    start_server: StartServer, tmp_path: Path
) -> None:
    source, target = await start_server(), await start_server(None, {"max_payload": 65536})
    async with connected(source) as js:
        await js.create_stream(STREAM | {"storage": "memory"})
        await ten(js)
        for _ in range(3):
            await publish(js, "s.large", bytes(100_000))
        await js.create_stream({"name": "F", "subjects": ["f"], "storage": "file"})
        await publish(js, "f", bytes(100_000))
        kept = await keep(js, tmp_path)
    async with connected(target) as js:
        assert [(one.cause, one.count) for one in await losses(js, kept.only("S"))] == [("max_payload", 3)]
        one = (await put_back(js, kept.only("S"), accept_loss=True)).streams[0]
        assert (one.lost, one.as_foreseen) == (3, True)
        assert (await state_of(js, "S"))[0] == 10
        await put_back(js, kept.only("F"))
        assert await state_of(js, "F") == (1, 1, 1), "blocks take what is larger"


async def test_max_msg_size_drops_nothing(any_server: Sandbox, tmp_path: Path) -> None:
    async with connected(any_server) as js:
        kept = await kept_with(js, tmp_path, max_msg_size=10)
        await put_back(js, kept)
        assert await state_of(js, "S") == (10, 1, 10)


async def test_subjects_that_another_stream_has(server: Sandbox, tmp_path: Path) -> None:
    async with connected(server) as js:
        kept = await kept_with(js, tmp_path, subjects=["s.>", "other"])
        await js.create_stream({"name": "OLD", "subjects": ["s.1"], "storage": "file"})
        assert [(one.cause, one.count, one.unit) for one in await losses(js, kept)] == [("overlap", 1, "subjects")]
        await put_back(js, kept, accept_loss=True)
        assert (await js.stream_info("S"))["config"]["subjects"] == ["other"]
        await publish(js, "other")
        assert (await state_of(js, "S"))[0] == 11
        await publish(js, "s.1")
        assert (await state_of(js, "OLD"))[0] == 1


async def test_account_limits_are_foreseen(start_server: StartServer, tmp_path: Path) -> None:
    limits = {"max_file": 1000, "max_mem": 1000000, "max_streams": 5}
    accounts = {"A": {"jetstream": limits, "users": [{"user": "a", "password": "a"}]}}
    source, target = await start_server(), await start_server(None, {"accounts": accounts, "no_auth_user": "a"})
    async with connected(source) as js:
        kept = await kept_with(js, tmp_path)
    kept.manifests[0].config.pop("max_bytes", None)
    async with connected(target) as js:
        with pytest.raises(CannotRestoreError) as refused:
            await put_back(js, kept)
        assert refused.value.code == "restore.account-limit"
        assert await js.find_stream("S") is None


async def test_an_account_that_demands_a_limit_of_bytes_gets_it_and_drops_nothing(
    start_server: StartServer, tmp_path: Path
) -> None:
    limits = {"max_file": 10_000_000, "max_mem": 0, "max_bytes_required": True, "disk_max_stream_bytes": 1_000_000}
    accounts = {"A": {"jetstream": limits, "users": [{"user": "a", "password": "a"}]}}
    target = await start_server(None, {"accounts": accounts, "no_auth_user": "a"})
    async with connected(target) as js:
        await js.create_stream(STREAM | {"max_bytes": 100_000})
        await ten(js)
        kept = await keep(js, tmp_path)
        await js.delete_stream("S")
        await put_back(js, kept)
        assert await state_of(js, "S") == (10, 1, 10)
        assert (await js.stream_info("S"))["config"]["max_bytes"] == 100_000


@pytest.mark.parametrize("version", ["2.10.26", "2.12.8"])
async def test_consumers_that_cannot_come_along_are_counted(
    version: str, start_server: StartServer, tmp_path: Path
) -> None:
    source, target = await start_server(), await start_server(version)
    async with connected(source) as js:
        await js.create_stream(STREAM)
        await ten(js)
        await consumer(js, "S", "plain")
        flow = {"ack_policy": "flow_control", "flow_control": True, "idle_heartbeat": SECOND, "deliver_subject": "x.d"}
        await consumer(js, "S", "flow", **flow)
        kept = await keep(js, tmp_path)
    async with connected(target) as js:
        assert [(one.cause, one.count) for one in await losses(js, kept)] == [("consumers", 1)]
        await put_back(js, kept, accept_loss=True)
        assert [one["name"] for one in await js.consumers("S")] == ["plain"]


@pytest.mark.parametrize("version", ["2.10.26", "2.14.6"])
async def test_memory_streams_go_to_disk_where_the_target_restores_no_memory(
    version: str, start_server: StartServer, tmp_path: Path
) -> None:
    source, target = await start_server(), await start_server(version)
    async with connected(source) as js:
        await js.create_stream(STREAM | {"storage": "memory"})
        await ten(js)
        kept = await keep(js, tmp_path)
    async with connected(target) as js:
        with pytest.raises(CannotRestoreError) as refused:
            await put_back(js, kept)
        assert refused.value.code == "restore.memory-storage"
        await put_back(js, kept, storage="file")
        assert await state_of(js, "S") == (10, 1, 10)
        assert (await js.stream_info("S"))["config"]["storage"] == "file"
