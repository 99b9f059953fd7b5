"""Backups and restores through a bad line to a real S3 server: the source's 5 s windows hold, nothing committed is lost."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from jetkeep.capture.run import BackupOptions, back_up
from jetkeep.errors import JetkeepError
from jetkeep.repository.address import store_at
from jetkeep.repository.repository import Repository
from jetkeep.sandbox import Sandbox
from jetkeep.verify import verify
from tests.backing_up import MIB, fill, run, start, told
from tests.conftest import StartServer
from tests.object_stores.proxy import CUT_UPLOAD, LOSE_ANSWER, RESET, SLOW_DOWN, Fault, Proxy, Seen
from tests.object_stores.seaweed import Bucket
from tests.publisher import Publisher
from tests.restoring import connected, quiet


@pytest.fixture
def proxy(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy(bucket.server.endpoint) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.endpoint)
        yield between


async def labels_of(url: str) -> list[str]:
    """The backups, once all that they name was read and found good."""
    repository = await Repository.open(store_at(url))
    report = await verify(repository, emit=quiet)
    assert report.sound, report.findings
    return sorted(one.label for one in (await repository.backups())[0])


async def back_up_to(url: str, server: Sandbox, label: str) -> None:
    async with connected(server) as js:
        repository = await Repository.open_or_create(store_at(url), now_ns=time.time_ns)
        report = await back_up(js, repository, BackupOptions(label=label), emit=quiet, now_ns=time.time_ns)
        assert not report.failed, report.failed


async def test_a_stall_longer_than_the_server_s_window_costs_nothing(
    start_server: StartServer, bucket: Bucket, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scaled: every buffer between server and store is small, so that it stands still with 12 MiB on the way."""
    for name, size in (
        ("jetstream.snapshot.BUFFER_BYTES", 1 * MIB),
        ("assembly.segments.SEGMENT_BYTES", 1 * MIB),
        ("assembly.segments.UPLOADING_BYTES", 1 * MIB),
    ):
        monkeypatch.setattr(f"jetkeep.{name}", size)
    server = await start_server()
    await fill(server.url, "BIG", 24, storage="file")
    stalled: list[Seen] = []

    def faults(seen: Seen) -> Fault | None:
        if seen.method == "PUT" and "/segments/" in seen.path and not stalled:
            stalled.append(seen)
            return Fault(stall_s=7)
        return None

    proxy.faults = faults
    await back_up_to(bucket.url, server, "one")
    assert stalled
    assert await labels_of(bucket.url) == ["one"]


@pytest.mark.patient
@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", ["2.10", "2.15"])
def test_a_whole_backup_over_a_really_slow_line(
    start_server: StartServer, bucket: Bucket, proxy: Proxy, version: str
) -> None:
    """200 ms a request, 1 MB/s, and two stalls of 30 s."""
    server = asyncio.run(start_server(version))
    asyncio.run(fill(server.url, "BIG", 160, storage="file"))
    proxy.latency_s, proxy.bytes_per_s = 0.2, 1e6
    stalls = [40, 90]

    def faults(seen: Seen) -> Fault | None:
        sent = sum(one.size for one in proxy.seen) / MIB
        if stalls and seen.method == "PUT" and sent > stalls[0]:
            stalls.pop(0)
            return Fault(stall_s=30)
        return None

    proxy.faults = faults
    process = start("backup", "--label", "slow", repo=bucket.url, url=server.url)
    out, err = process.communicate(timeout=800)
    assert process.returncode == 0, (out, err)
    assert not stalls
    proxy.latency_s = proxy.bytes_per_s = 0
    assert asyncio.run(labels_of(bucket.url)) == ["slow"]


def sometimes(seed: int, proxy: Proxy) -> None:
    """Of the requests some are refused, reset, cut or lose their answer, never the same one three times running."""
    chance = random.Random(seed)
    kinds = (SLOW_DOWN, RESET, CUT_UPLOAD, LOSE_ANSWER, Fault(stall_s=0.3))
    failed: dict[str, int] = {}

    def faults(seen: Seen) -> Fault | None:
        if chance.random() > 0.3 or failed.get(seen.path, 0) >= 2:
            return None
        failed[seen.path] = failed.get(seen.path, 0) + 1
        return chance.choice(kinds)

    proxy.faults = faults


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))])
def test_the_loop_ends_well_on_a_line_that_fails_a_third_of_the_requests(
    start_server: StartServer, bucket: Bucket, proxy: Proxy, seed: int
) -> None:
    source = asyncio.run(start_server())
    asyncio.run(small(source))
    sometimes(seed, proxy)
    run("backup", "--label", "one", repo=bucket.url, url=source.url)
    run("backup", "--label", "two", repo=bucket.url, url=source.url)
    assert told(run("verify", "--json", repo=bucket.url))["findings"] == []
    run("expire", "--keep-last", "1", repo=bucket.url)
    target = asyncio.run(start_server())
    run("restore", repo=bucket.url, url=target.url)
    proxy.faults = lambda seen: None
    assert asyncio.run(labels_of(bucket.url)) == ["two"]


async def small(server: Sandbox) -> None:
    async with Publisher(server.url) as publisher:
        for name in ("ORDERS", "EMPTY"):
            await publisher.create(name, storage="file")
        await publisher.store_all((f"ORDERS.{at % 3}", b"order %d" % at, b"") for at in range(300))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_while_the_store_stalls_ends_at_once_and_costs_nothing(
    start_server: StartServer, bucket: Bucket, proxy: Proxy, how: signal.Signals
) -> None:
    source = asyncio.run(start_server())
    asyncio.run(small(source))
    run("backup", "--label", "before", repo=bucket.url, url=source.url)
    stalled = threading.Event()

    def faults(seen: Seen) -> Fault | None:
        if seen.method == "PUT" and "/sources/" in seen.path:
            stalled.set()
            return Fault(stall_s=60)
        return None

    proxy.faults = faults
    process = start("backup", "--label", "stopped", repo=bucket.url, url=source.url)
    assert stalled.wait(30)
    process.send_signal(how)
    process.communicate(timeout=20)
    assert process.returncode == (-how if how is signal.SIGKILL else 130)
    proxy.faults = lambda seen: None
    run("backup", "--label", "after", repo=bucket.url, url=source.url)
    assert asyncio.run(labels_of(bucket.url)) == ["after", "before"]


@pytest.mark.parametrize(
    ("fault", "ends"),
    [(SLOW_DOWN, (13, 14)), (RESET, (13, 14)), (CUT_UPLOAD, (13, 14)), (LOSE_ANSWER, (0, 13, 14))],
    ids=["503s", "resets", "cut uploads", "lost answers"],
)
async def test_a_line_that_breaks_for_good_ends_the_run_and_costs_no_backup(
    start_server: StartServer,
    bucket: Bucket,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    ends: tuple[int],
) -> None:
    server = await start_server()
    await small(server)
    await back_up_to(bucket.url, server, "before")
    monkeypatch.setattr("jetkeep.repository.objects.RETRIES", 1)
    monkeypatch.setattr("jetkeep.repository.objects._AGAIN_S", ())
    monkeypatch.setattr("jetkeep.repository.store._AGAIN_S", (0.0,))
    proxy.forget()
    await back_up_to(bucket.url, server, "counted")
    requests = len(proxy.seen)
    assert 5 < requests < 60
    for breaks_at in range(1, requests, 3):
        proxy.forget()
        proxy.faults = lambda seen, first=breaks_at: fault if seen.number >= first else None  # type: ignore[misc]
        label = f"broken-{breaks_at}"
        status, hint = await attempt(bucket.url, server, label)
        assert status in ends, (breaks_at, status)
        assert hint or not status
        proxy.faults = lambda seen: None
        there = await labels_of(bucket.url)
        assert {"before", "counted"} <= set(there)
        assert status or label in there
    await back_up_to(bucket.url, server, "after")
    assert "after" in await labels_of(bucket.url)


async def attempt(url: str, server: Sandbox, label: str) -> tuple[int, str]:
    """How a backup ended: its exit status, and what to do."""
    try:
        await back_up_to(url, server, label)
    except JetkeepError as failure:
        return failure.exit_status, failure.hint
    return 0, ""
