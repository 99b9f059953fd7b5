"""Every source version to every target version: each message, field, bound and consumer position, by the server's API."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jetkeep.jetstream import JetStream
from jetkeep.restore.fields import Version
from jetkeep.restore.report import RestoreReport
from jetkeep.sandbox import Sandbox
from tests.conftest import StartServer
from tests.matrix.looking import Look, Release, as_restored, clients_see, look
from tests.matrix.shop import MANUAL, PICTURE, PLAIN, atomic_batch, fill
from tests.restoring import SECOND, Kept, connected, keep, publish, put_back
from tests.versions import VERSIONS

#: Field → the first release that has it. Written by hand: the product's own table is what is tested.
SINCE: dict[str, dict[str, Release]] = {
    "KV_profiles": {"allow_msg_ttl": (2, 11)},
    "TTL": {"allow_msg_ttl": (2, 11), "subject_delete_marker_ttl": (2, 11)},
    "COUNTER": {"allow_msg_counter": (2, 12)},
    "ATOMIC": {"allow_atomic": (2, 12)},
    "ASYNC": {"persist_mode": (2, 12)},
    "SCHEDULES": {"allow_msg_schedules": (2, 12)},
    "FAST": {"allow_batched": (2, 14)},
    "LIMITS": {
        "paused.pause_until": (2, 11),
        "overflow.priority_groups": (2, 11),
        "overflow.priority_policy": (2, 11),
        "pinned.priority_groups": (2, 11),
        "pinned.priority_policy": (2, 11),
        "pinned.priority_timeout": (2, 11),
        "prioritized.priority_groups": (2, 12),
        "prioritized.priority_policy": (2, 12),
    },
}
FLOWING: Release = (2, 14)
#: Until then a server gives streams with sources its usual deduplication window, as it does to those that name none.
WINDOWLESS: Release = (2, 14)
USUAL_WINDOW = 120 * SECOND
ARCHIVE: Release = (2, 15)


@dataclass
class Shop:
    """A shop that was backed up: what its server had, and what its clients read there."""

    release: Release
    kept: Kept
    seen: dict[str, Look]
    clients: dict[str, Any]


def release_of(version: str) -> Release:
    return Version.of(version)[:2]


def encrypted(cipher: str) -> dict[str, Any] | None:
    return {"jetstream": {"key": "of the test", "cipher": cipher}} if cipher else None


def in_plain_words(server: Sandbox) -> bool:
    """What the shop keeps secret can be read on the server's disk."""
    return any(PLAIN in path.read_bytes() for path in server.store_dir.rglob("*") if path.is_file())


async def shop(start_server: StartServer, version: str, folder: Path, cipher: str) -> Shop:
    server = await start_server(version, encrypted(cipher))
    release = release_of(version)
    async with connected(server) as js:
        names = await fill(js, server.url, release)
        seen = {name: await look(js, name) for name in names}
        kept = await keep(js, folder)
        clients = await clients_see(server.url)
    await server.stop()
    assert in_plain_words(server) is not bool(cipher)
    assert clients["objects"]["picture"][0] == PICTURE
    assert clients["objects"]["manual"][0] == MANUAL
    return Shop(release, kept, seen, clients)


def dropped(name: str, source: Shop, target: Release) -> dict[str, Any]:
    """What must differ: `as_restored` says how it is written."""
    found: dict[str, Any] = {
        path: None
        for path, since in SINCE.get(name, {}).items()
        if target < since and (path in source.seen[name].config or path.split(".")[0] in source.seen[name].consumers)
    }
    if name == "LIMITS":
        found["inmemory.mem_storage"] = None  # the tar, which every file stream is sent as, has no place for it
        if target < FLOWING <= source.release:
            found["flowing"] = None
    if name == "MEMORY" and target < ARCHIVE:
        found |= {"storage": "file", "both.mem_storage": None}
    return found


def named(report: RestoreReport, name: str) -> set[str]:
    """The fields that a restore's report says are gone or changed, as `dropped` writes them."""
    step = next(one.step for one in report.streams if one.step.name == name)
    found = set()
    for one in step.differences:
        text = (
            one.what.removeprefix("consumer ").replace(": ", ".", 1) if one.what.startswith("consumer ") else one.what
        )
        if text.endswith(" dropped") or " → " in text:
            found.add(text.split(" ", maxsplit=1)[0])
    for loss in step.losses:
        assert loss.cause == "consumers"
        found.add(loss.why.split(" ", maxsplit=1)[0])
    return found


async def compare(js: JetStream, source: Shop, target: Release, *, without: tuple[str, ...] = ()) -> None:
    for name, was in source.seen.items():
        if name in without:
            continue
        expected = as_restored(was, source.release, dropped(name, source, target))
        if name == "SOURCED" and target < WINDOWLESS:
            expected.config.setdefault("duplicate_window", USUAL_WINDOW)
        assert await look(js, name) == expected, name


async def repeats(js: JetStream, report: RestoreReport, *names: str) -> None:
    """A message that is published again is a duplicate, unless the plan said that the window is empty."""
    for name in names:
        step = next(one.step for one in report.streams if one.step.name == name)
        empty = any(one.what == "the deduplication window is empty" for one in step.differences)
        assert empty is (step.writer == "archive"), name
        answer = await publish(js, f"{name.lower()}.0", b"once more", Nats_Msg_Id="id-48")
        assert bool(answer.get("duplicate")) is not empty, name


async def goes_on(js: JetStream, url: str, source: Shop, target: Release) -> None:
    """The shop is open: what its clients do works as before."""
    assert await clients_see(url) == source.clients
    if min(source.release, target) >= (2, 12):
        assert (await publish(js, "counter.visits", b"", Nats_Incr="+3"))["val"] == "18"
        assert (await atomic_batch(js, "next"))["count"] == 4


async def there(source: Shop, server: Sandbox) -> None:
    target = release_of(server.version)
    async with connected(server) as js:
        report = await put_back(js, source.kept, accept_loss=True)
        for name in source.seen:
            assert named(report, name) == dropped(name, source, target).keys(), name
        assert all(one.as_foreseen and not one.lost and not one.appended for one in report.streams)
        await compare(js, source, target)
        await repeats(js, report, "DEDUPE", "MEMORY")
    await server.restart()
    volatile = ("MEMORY",) if target >= ARCHIVE else ()
    async with connected(server) as js:
        await compare(js, source, target, without=volatile)
        await repeats(js, report, "DEDUPE")
        await goes_on(js, server.url, source, target)
    await server.stop()


@pytest.mark.matrix
@pytest.mark.timeout(600)
@pytest.mark.parametrize("source", VERSIONS)
async def test_every_message_and_position_comes_back(start_server: StartServer, tmp_path: Path, source: str) -> None:
    """From servers that encrypt what they store, to servers of which every second one does."""
    at = VERSIONS.index(source)
    had = await shop(start_server, source, tmp_path, ("aes", "chacha")[at % 2])
    for to, version in enumerate(VERSIONS):
        cipher = ("", "chacha", "", "aes")[(at + to) % 4]
        target = await start_server(version, encrypted(cipher))
        await there(had, target)
        assert in_plain_words(target) is not bool(cipher)


@pytest.mark.parametrize(("source", "target"), [("2.10.26", "2.15.1"), ("2.15.1", "2.10.26")])
async def test_up_and_down(start_server: StartServer, tmp_path: Path, source: str, target: str) -> None:
    await there(await shop(start_server, source, tmp_path, ""), await start_server(target))
