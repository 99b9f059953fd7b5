"""What the tests of restoring share: fill a real server, back it up, restore to another, look at what is there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jetkeep.capture.run import BackupOptions, back_up
from jetkeep.catalog import choose_streams
from jetkeep.config import ConnectionSettings
from jetkeep.jetstream import JetStream, connect
from jetkeep.model import Event, JsonDict
from jetkeep.repository.documents import Manifest
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.restore.decisions import Plan, RestoreOptions
from jetkeep.restore.report import RestoreReport
from jetkeep.restore.run import plan_restore, restore
from jetkeep.sandbox import Sandbox, SandboxCluster

SECOND = 1_000_000_000
HOUR = 3600 * SECOND


def quiet(_: Event) -> None:
    """No progress."""


@asynccontextmanager
async def connected(server: Sandbox | SandboxCluster, **settings: Any) -> AsyncIterator[JetStream]:
    """A connection to a sandbox, as jetkeep makes it."""
    async with connect(ConnectionSettings(servers=tuple(server.url.split(",")), **settings)) as js:
        yield js


async def publish(js: JetStream, subject: str, payload: bytes = b"x", **headers: str) -> JsonDict:
    """Publish and wait for the stream's answer; header names are written with `_` for `-`."""
    block = {key.replace("_", "-"): value for key, value in headers.items()}
    answer = await js.client.request(subject, payload, timeout=5, headers=block or None)
    told: JsonDict = json.loads(answer.data)
    assert "error" not in told, told
    return told


async def consumer(js: JetStream, stream: str, name: str, **config: Any) -> JsonDict:
    """Create a durable consumer."""
    body = {"stream_name": stream, "config": {"durable_name": name, "ack_policy": "explicit", **config}}
    return await js.request(f"CONSUMER.CREATE.{stream}.{name}", body)


async def fetch(js: JetStream, stream: str, name: str, count: int, acks: Sequence[int] = ()) -> list[Any]:
    """Let a pull consumer deliver `count` messages; acknowledge those at these positions."""
    inbox = js.client.new_inbox()
    subscription = await js.client.subscribe(inbox)
    body = json.dumps({"batch": count, "expires": 2 * SECOND}).encode()
    await js.client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}", body, reply=inbox)
    got = [await subscription.next_msg(timeout=5) for _ in range(count)]
    for at in acks:
        await js.client.request(got[at].reply, b"+ACK", timeout=5)
    await subscription.unsubscribe()
    return got


async def messages(js: JetStream, stream: str) -> list[tuple[int, str, str, str | None, str]]:
    """Every stored message as the server's API tells it: sequence, subject, time, headers, data (both base64)."""
    state = (await js.stream_info(stream))["state"]
    found = []
    for seq in range(max(state["first_seq"], 1), state["last_seq"] + 1):
        answer = await js.client.request(
            f"$JS.API.STREAM.MSG.GET.{stream}", json.dumps({"seq": seq}).encode(), timeout=5
        )
        told = json.loads(answer.data).get("message")
        if told:
            found.append((told["seq"], told["subject"], told["time"], told.get("hdrs"), told.get("data", "")))
    return found


async def state_of(js: JetStream, stream: str) -> tuple[int, int, int]:
    """(messages, first sequence, last sequence)."""
    state = (await js.stream_info(stream))["state"]
    return state["messages"], state["first_seq"], state["last_seq"]


@dataclass
class Kept:
    """A backup: its repository and the manifests of its streams."""

    repository: Repository
    manifests: list[Manifest]

    def only(self, *names: str) -> Kept:
        """The same with these streams."""
        return Kept(self.repository, [one for one in self.manifests if one.stream in names])


async def keep(js: JetStream, folder: Path, *streams: str) -> Kept:
    """Back up into a repository in `folder`."""
    repository = await Repository.open_or_create(LocalStore(folder), now_ns=time.time_ns)
    report = await back_up(js, repository, BackupOptions(include=streams), emit=quiet, now_ns=time.time_ns)
    assert not report.failed, report.failed
    chosen = await choose_streams(repository, report.backup)
    return Kept(repository, [one.manifest for one in chosen])


async def planned(js: JetStream, kept: Kept, *, now_ns: Callable[[], int] = time.time_ns, **options: Any) -> Plan:
    """The plan, without doing anything."""
    plan, _ = await plan_restore(
        kept.repository, js, kept.manifests, RestoreOptions(**options), now_ns=now_ns, emit=quiet
    )
    return plan


async def put_back(js: JetStream, kept: Kept, **options: Any) -> RestoreReport:
    """Restore everything; the first failure is raised."""
    report = await restore(kept.repository, js, kept.manifests, RestoreOptions(**options), emit=quiet)
    for one in report.failed:
        assert one.error
        raise one.error
    return report


@asynccontextmanager
async def both(source: Sandbox, target: Sandbox | SandboxCluster) -> AsyncIterator[tuple[JetStream, JetStream]]:
    """Connections to two servers."""
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(connected(source)), await stack.enter_async_context(connected(target))


async def eventually(check: Callable[[], Any], seconds: float = 8.0) -> Any:
    """Await `check()` until it is true."""
    deadline = time.monotonic() + seconds
    while True:
        found = await check()
        if found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.1)
