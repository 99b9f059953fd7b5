"""Every kind of stream comes back as it was, is used as before, and survives a restart of its server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from jetkeep.errors import ApiError
from jetkeep.jetstream import JetStream
from jetkeep.restore.decisions import RestoreOptions
from jetkeep.restore.fields import Version
from jetkeep.restore.run import restore
from jetkeep.sandbox import Sandbox
from tests.conftest import StartServer
from tests.restoring import (
    SECOND,
    connected,
    consumer,
    eventually,
    fetch,
    keep,
    messages,
    planned,
    publish,
    put_back,
    state_of,
)
from tests.versions import VERSIONS


async def consumers(js: JetStream, stream: str) -> dict[str, tuple[Any, ...]]:
    """Positions of every consumer as the API tells them."""
    return {
        one["name"]: (
            one["delivered"]["consumer_seq"],
            one["delivered"]["stream_seq"],
            one["ack_floor"]["consumer_seq"],
            one["ack_floor"]["stream_seq"],
            one["num_ack_pending"],
            one["num_redelivered"],
            one["num_pending"],
            one.get("paused", False),
        )
        for one in await js.consumers(stream)
    }


async def shape(js: JetStream, stream: str) -> tuple[Any, ...]:
    """All that must be the same."""
    config = {key: value for key, value in (await js.stream_info(stream))["config"].items() if value}
    metadata = {key: value for key, value in config.pop("metadata", {}).items() if not key.startswith("_nats.")}
    return await state_of(js, stream), await messages(js, stream), config, metadata, await consumers(js, stream)


async def round_trip(server: Sandbox, js: JetStream, folder: Path, *streams: str) -> None:
    """Back up, delete, restore, compare; restart, compare."""
    before = {name: await shape(js, name) for name in streams}
    kept = await keep(js, folder, *streams)
    for name in streams:
        await js.delete_stream(name)
    report = await put_back(js, kept)
    assert all(one.as_foreseen and not one.lost and not one.step.losses for one in report.streams)
    assert {name: await shape(js, name) for name in streams} == before
    await server.restart()
    async with connected(server) as again:
        assert {name: await shape(again, name) for name in streams} == before


async def test_a_stream_with_deletions_and_consumers(any_server: Sandbox, tmp_path: Path) -> None:
    async with connected(any_server) as js:
        config = {"max_age": 72 * 3600 * SECOND, "description": "d", "metadata": {"a": "b"}, "max_msgs": 500}
        await js.create_stream({"name": "S", "subjects": ["s.>", "t.*"], "storage": "file", **config})
        for at in range(60):
            await publish(js, f"s.{at % 3}", b"x" * at, A="1", Nats_Msg_Id=str(at))
        await publish(js, "t.é", b"")
        await consumer(js, "S", "all", max_deliver=3, ack_wait=SECOND)
        await consumer(js, "S", "one", filter_subject="s.1")
        await consumer(js, "S", "push", deliver_subject="push.here", ack_policy="none", ack_wait=0)
        await fetch(js, "S", "all", 4, (0,))
        await asyncio.sleep(1.3)
        await fetch(js, "S", "all", 3, (1,))
        await fetch(js, "S", "one", 5, (0, 1, 3))
        for seq in (1, 2, 7, 8, 9, 30):
            await js.request("STREAM.MSG.DELETE.S", {"seq": seq})
        await js.request("CONSUMER.DELETE.S.push")
        await round_trip(any_server, js, tmp_path, "S")


async def test_work_queues_and_interest(any_server: Sandbox, tmp_path: Path) -> None:
    async with connected(any_server) as js:
        for name, retention in (("W", "workqueue"), ("I", "interest")):
            subject = name.lower()
            await js.create_stream(
                {"name": name, "subjects": [f"{subject}.>"], "retention": retention, "storage": "file"}
            )
            await consumer(js, name, "a", filter_subject=f"{subject}.a")
            await consumer(js, name, "b", filter_subject=f"{subject}.b")
            for at in range(12):
                await publish(js, f"{subject}.{'ab'[at % 2]}")
            await fetch(js, name, "a", 4, (0, 2))
            await fetch(js, name, "b", 2)
        await asyncio.sleep(0.3)
        told = {name: (await state_of(js, name), await messages(js, name)) for name in "IW"}
        kept = await keep(js, tmp_path)
        for name in "IW":
            await js.delete_stream(name)
        await put_back(js, kept)
        await any_server.restart()
    async with connected(any_server) as js:
        for one in kept.manifests:
            assert (await state_of(js, one.stream), await messages(js, one.stream)) == told[one.stream]
            # Floors below the first sequence are lifted: servers before 2.15 hold such, and 2.15 ignores them.
            expected = {doc.name: doc.record().state.within(one.first_seq, one.last_seq) for doc in one.consumers}
            found = {name: (each[1], each[3], each[4]) for name, each in (await consumers(js, one.stream)).items()}
            assert found == {
                name: (state.delivered.stream_seq, state.ack_floor.stream_seq, len(state.pending))
                for name, state in expected.items()
            }


async def test_work_goes_on_where_it_stopped(any_server: Sandbox, tmp_path: Path) -> None:
    async with connected(any_server) as js:
        await js.create_stream({"name": "W", "subjects": ["w"], "retention": "workqueue", "storage": "file"})
        await consumer(js, "W", "c", ack_wait=SECOND)
        for at in range(6):
            await publish(js, "w", str(at).encode())
        await fetch(js, "W", "c", 4, (0, 2))
        await asyncio.sleep(0.2)
        kept = await keep(js, tmp_path)
        await js.delete_stream("W")
        await put_back(js, kept)
        await asyncio.sleep(1.2)
        got = [message.data for message in await fetch(js, "W", "c", 4, (0, 1, 2, 3))]
        assert sorted(got) == [b"1", b"3", b"4", b"5"]
        assert await eventually(lambda: _empty(js, "W"))
        assert (await publish(js, "w"))["seq"] == 7


async def _empty(js: JetStream, stream: str) -> bool:
    return (await state_of(js, stream))[0] == 0


async def test_clients_that_wait_for_their_consumer_do_not_read_before_the_stream_is_proven(
    any_server: Sandbox, tmp_path: Path
) -> None:
    """Workers poll all the time; on 2.10, which cannot pause consumers, they are to be stopped."""
    if Version.of(any_server.version) < Version(2, 11):
        pytest.skip("this server cannot pause consumers")
    async with connected(any_server) as js, connected(any_server) as worker:
        await js.create_stream({"name": "W", "subjects": ["w"], "retention": "workqueue", "storage": "file"})
        await consumer(js, "W", "c")
        for at in range(300):
            await publish(js, "w", str(at).encode())
        kept = await keep(js, tmp_path)
        await js.delete_stream("W")
        done: list[bytes] = []
        inbox = worker.client.new_inbox()

        async def work(message: Any) -> None:
            if message.reply:
                done.append(message.data)
                await worker.client.publish(message.reply, b"+ACK")

        await worker.client.subscribe(inbox, cb=work)

        async def poll() -> None:
            while True:
                request = b'{"batch":10,"expires":200000000}'
                await worker.client.publish("$JS.API.CONSUMER.MSG.NEXT.W.c", request, reply=inbox)
                await asyncio.sleep(0.005)

        polling = asyncio.create_task(poll())
        try:
            await put_back(js, kept)
            assert await eventually(lambda: _empty(js, "W"))
        finally:
            polling.cancel()
        assert sorted(done, key=int) == [str(at).encode() for at in range(300)]
        assert not (await js.consumers("W"))[0].get("paused")


async def test_a_pause_of_its_own_is_kept(server: Sandbox, tmp_path: Path) -> None:
    async with connected(server) as js:
        await js.create_stream({"name": "S", "subjects": ["s"], "storage": "file"})
        await consumer(js, "S", "asleep", pause_until="2099-01-01T00:00:00Z")
        await consumer(js, "S", "awake")
        kept = await keep(js, tmp_path)
        await js.delete_stream("S")
        await put_back(js, kept)
        found = {one["name"]: one for one in await js.consumers("S")}
        assert found["asleep"]["config"]["pause_until"] == "2099-01-01T00:00:00Z"
        assert found["asleep"]["paused"]
        assert not found["awake"].get("paused")


async def test_key_values_and_objects(any_server: Sandbox, tmp_path: Path) -> None:
    async with connected(any_server) as js:
        bucket = {
            "discard": "new",
            "max_msgs_per_subject": 3,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
            "allow_direct": True,
        }
        await js.create_stream({"name": "KV_k", "subjects": ["$KV.k.>"], "storage": "file", **bucket})
        for at in range(5):
            await publish(js, "$KV.k.a", str(at).encode())
        await publish(js, "$KV.k.b", b"1")
        await publish(js, "$KV.k.b", b"", KV_Operation="DEL")
        store = {"discard": "new", "allow_rollup_hdrs": True, "allow_direct": True}
        await js.create_stream({"name": "OBJ_o", "subjects": ["$O.o.C.>", "$O.o.M.>"], "storage": "file", **store})
        await publish(js, "$O.o.C.x", bytes(100_000))
        await publish(js, "$O.o.M.name", b"{}", Nats_Rollup="sub")
        await round_trip(any_server, js, tmp_path, "KV_k", "OBJ_o")


async def test_streams_without_messages(any_server: Sandbox, tmp_path: Path) -> None:
    async with connected(any_server) as js:
        await js.create_stream({"name": "NEW", "subjects": ["n"], "storage": "file"})
        await js.create_stream({"name": "USED", "subjects": ["u"], "storage": "file"})
        for _ in range(5):
            await publish(js, "u")
        await consumer(js, "USED", "c")
        await js.request("STREAM.PURGE.USED")
        await js.create_stream({"name": "TAIL", "subjects": ["t"], "storage": "file"})
        for _ in range(5):
            await publish(js, "t")
        for seq in (1, 4, 5):
            await js.request("STREAM.MSG.DELETE.TAIL", {"seq": seq})
        await round_trip(any_server, js, tmp_path, "NEW", "TAIL", "USED")
    async with connected(any_server) as js:
        assert (await publish(js, "u"))["seq"] == 6
        assert (await publish(js, "t"))["seq"] == 6
        assert (await publish(js, "n"))["seq"] == 1


async def test_mirrors_and_sources_go_on_after_their_last_message(any_server: Sandbox, tmp_path: Path) -> None:
    async with connected(any_server) as js:
        await js.create_stream({"name": "O", "subjects": ["o.>"], "storage": "file"})
        await js.create_stream({"name": "M", "mirror": {"name": "O"}, "storage": "file"})
        await js.create_stream({"name": "S", "sources": [{"name": "O", "filter_subject": "o.a"}], "storage": "file"})
        drained = {"retention": "workqueue", "sources": [{"name": "O"}], "storage": "file"}
        await js.create_stream({"name": "W", **drained})
        for at in range(10):
            await publish(js, f"o.{'ab'[at % 2]}")
        await eventually(lambda: _holds(js, W=10, M=10, S=5))
        await consumer(js, "W", "c")
        await fetch(js, "W", "c", 10, range(10))
        await eventually(lambda: _empty(js, "W"))
        kept = await keep(js, tmp_path)
        for name in "OMSW":
            await js.delete_stream(name)
        plan = await planned(js, kept)
        assert plan.steps[0].name == "O"
        await put_back(js, kept)
        await publish(js, "o.a")
        assert await eventually(lambda: _holds(js, W=1, M=11, S=6), 15)
        await asyncio.sleep(2)
        assert await _holds(js, W=1, M=11, S=6), "nothing is taken twice"


async def _holds(js: JetStream, **counts: int) -> bool:
    return all([(await state_of(js, name))[0] == count for name, count in counts.items()])


async def test_a_sealed_stream_stays_sealed(any_server: Sandbox, tmp_path: Path) -> None:
    async with connected(any_server) as js:
        await js.create_stream({"name": "S", "subjects": ["s"], "storage": "file"})
        await publish(js, "s")
        await js.update_stream((await js.stream_info("S"))["config"] | {"sealed": True})
        await round_trip(any_server, js, tmp_path, "S")
    async with connected(any_server) as js:
        with pytest.raises((ApiError, AssertionError)):
            await publish(js, "s")


async def test_a_first_sequence_of_its_own(any_server: Sandbox, tmp_path: Path) -> None:
    """2.10 empties such a stream at every restart; without the field, which the plan takes out there, it does not."""
    async with connected(any_server) as js:
        await js.create_stream({"name": "S", "subjects": ["s"], "storage": "file", "first_seq": 1000})
        for _ in range(5):
            await publish(js, "s")
        kept = await keep(js, tmp_path)
        await js.delete_stream("S")
        report = await put_back(js, kept)
        old = Version.of(any_server.version) < Version(2, 11)
        assert any("first_seq" in one.what for one in report.streams[0].step.differences) is old
        await any_server.restart()
    async with connected(any_server) as js:
        assert await state_of(js, "S") == (5, 1000, 1004)


@pytest.mark.parametrize("version", [one for one in VERSIONS if Version.of(one) >= Version(2, 12)])
async def test_counters_batches_and_persist_mode(version: str, start_server: StartServer, tmp_path: Path) -> None:
    server = await start_server(version)
    async with connected(server) as js:
        await js.create_stream(
            {"name": "C", "subjects": ["c.>"], "storage": "file", "allow_msg_counter": True, "allow_direct": True}
        )
        for step in ("+1", "+5", "-2"):
            await publish(js, "c.a", b"", Nats_Incr=step)
        await js.create_stream({"name": "P", "subjects": ["p"], "storage": "file", "persist_mode": "async"})
        await publish(js, "p")
        await js.create_stream({"name": "B", "subjects": ["b"], "storage": "file", "allow_atomic": True})
        await publish(js, "b")
        await round_trip(server, js, tmp_path, "B", "C", "P")
    async with connected(server) as js:
        assert (await publish(js, "c.a", b"", Nats_Incr="+10"))["val"] == "14"


async def test_compressed_streams(any_server: Sandbox, tmp_path: Path) -> None:
    async with connected(any_server) as js:
        await js.create_stream({"name": "S", "subjects": ["s"], "storage": "file", "compression": "s2"})
        for _ in range(50):
            await publish(js, "s", b"compress me " * 50)
        await round_trip(any_server, js, tmp_path, "S")


async def test_a_server_that_encrypts_what_it_stores(start_server: StartServer, tmp_path: Path) -> None:
    server = await start_server(None, {"jetstream": {"key": "secret", "cipher": "aes"}})
    async with connected(server) as js:
        await js.create_stream({"name": "S", "subjects": ["s"], "storage": "file"})
        for _ in range(20):
            await publish(js, "s", b"plaintext-marker")
        await round_trip(server, js, tmp_path, "S")
    await server.stop()
    assert not any(b"plaintext-marker" in one.read_bytes() for one in server.store_dir.rglob("*") if one.is_file())


async def test_memory_streams_and_their_ephemeral_consumers(server: Sandbox, tmp_path: Path) -> None:
    async with connected(server) as js:
        await js.create_stream({"name": "S", "subjects": ["s.>"], "storage": "memory"})
        for at in range(20):
            await publish(js, f"s.{at % 3}", str(at).encode(), A="1")
        await js.request("STREAM.MSG.DELETE.S", {"seq": 4})
        config = {"ack_policy": "explicit", "name": "eph", "inactive_threshold": 60 * SECOND, "mem_storage": True}
        await js.request("CONSUMER.CREATE.S.eph", {"stream_name": "S", "config": config})
        await fetch(js, "S", "eph", 5, (0, 2))
        before = await shape(js, "S")
        kept = await keep(js, tmp_path)
        await js.delete_stream("S")
        report = await put_back(js, kept)
        assert report.streams[0].step.writer == "archive"
        assert await shape(js, "S") == before


async def test_a_stream_under_another_name_keeps_sequences_and_subjects(any_server: Sandbox, tmp_path: Path) -> None:
    async with connected(any_server) as js:
        await js.create_stream({"name": "S", "subjects": ["s"], "storage": "file"})
        for _ in range(5):
            await publish(js, "s")
        await consumer(js, "S", "c")
        before = await messages(js, "S")
        kept = await keep(js, tmp_path)
        await js.delete_stream("S")
        await put_back(js, kept, as_name="COPY")
        assert await messages(js, "COPY") == before
        await any_server.restart()
    async with connected(any_server) as js:
        assert await messages(js, "COPY") == before
        assert (await publish(js, "s"))["stream"] == "COPY"


async def test_deduplication_after_a_restore(any_server: Sandbox, tmp_path: Path) -> None:
    """Blocks bring the window back with them; only the archive does not, and the plan says so."""
    async with connected(any_server) as js:
        await js.create_stream({"name": "S", "subjects": ["s"], "storage": "file", "duplicate_window": 600 * SECOND})
        await publish(js, "s", Nats_Msg_Id="1")
        kept = await keep(js, tmp_path)
        await js.delete_stream("S")
        report = await put_back(js, kept)
        told = any("deduplication" in one.what for one in report.streams[0].step.differences)
        again = await publish(js, "s", Nats_Msg_Id="1")
        assert bool(again.get("duplicate")) is not told


async def test_other_streams_go_on_while_one_fails(server: Sandbox, tmp_path: Path) -> None:
    async with connected(server) as js:
        for name in ("A", "B", "C"):
            await js.create_stream({"name": name, "subjects": [name], "storage": "file"})
            await publish(js, name)
        kept = await keep(js, tmp_path)
        for name in ("A", "B", "C"):
            await js.delete_stream(name)
        bad = kept.only("B").manifests[0].segments[0].key
        path = tmp_path / bad
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        report = await restore(kept.repository, js, kept.manifests, RestoreOptions(), emit=lambda _: None)
        assert {one.step.name: one.status for one in report.streams} == {
            "A": "restored",
            "B": "failed",
            "C": "restored",
        }
        assert report.status == "partial"
        error = report.failed[0].error
        assert error
        assert error.exit_status == 30
        assert await js.find_stream("B") is None


async def test_timings_are_by_phase(server: Sandbox, tmp_path: Path) -> None:
    async with connected(server) as js:
        await js.create_stream({"name": "S", "subjects": ["s"], "storage": "file"})
        await publish(js, "s")
        kept = await keep(js, tmp_path)
        await js.delete_stream("S")
        began = time.monotonic()
        report = await put_back(js, kept)
        took = time.monotonic() - began
        assert set(report.streams[0].seconds) == {"fetch", "send", "settle", "compare", "open"}
        assert sum(report.streams[0].seconds.values()) <= took
