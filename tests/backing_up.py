"""What the tests of backups under way share: a source, `jetkeep backup` as a process, and what must be true after."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from jetkeep.catalog import live_batches
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.jetstream import JetStream
from jetkeep.model import JsonDict, Message
from jetkeep.repository.documents import Backup, Manifest
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.verify import verify
from tests.publisher import Publisher
from tests.restoring import quiet

MIB = 1024 * 1024
PIECE = 256 * 1024


async def fill(url: str, name: str, megabytes: int, **config: Any) -> None:
    """A stream that cannot be compressed, so that its bytes are those that go over the wire."""
    chance = random.Random(name)
    async with Publisher(url) as publisher:
        await publisher.create(name, **config)
        await publisher.store_all(
            (f"{name}.{at % 5}", chance.randbytes(PIECE), b"") for at in range(megabytes * MIB // PIECE)
        )


async def source_facts(js: JetStream) -> dict[str, Any]:
    """All that the API tells of the account's streams and consumers, but for the moment of telling."""
    facts: dict[str, Any] = {}
    for info in (await js.stream_list()).infos:
        name = info["config"]["name"]
        told = await js.stream_info(name, deleted_details=True)
        consumers = [{**one, "ts": ""} for one in await js.consumers(name)]
        facts[name] = {**told, "ts": "", "consumers": consumers}
    return facts


def run(*words: str, repo: Path | str, url: str = "", check: int | None = 0) -> subprocess.CompletedProcess[str]:
    """`jetkeep` to its end; its exit status must be `check`."""
    done = subprocess.run(
        _command(*words), env=_environment(repo, url), capture_output=True, text=True, check=False, timeout=100
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert check is None or done.returncode == check, (done.returncode, done.stdout, done.stderr)
    return done


def start(*words: str, repo: Path | str, url: str = "") -> subprocess.Popen[str]:
    """`jetkeep` as a process that runs."""
    return subprocess.Popen(
        _command(*words), env=_environment(repo, url), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "jetkeep", *words]


def _environment(repo: Path | str, url: str) -> dict[str, str]:
    return {**os.environ, "JETKEEP_REPO": str(repo), **({"NATS_URL": url} if url else {})}


def tree(repo: Path) -> set[str]:
    """The paths of all files that are there now."""
    found = set()
    for folder, _, names in os.walk(repo):
        found |= {os.path.join(folder, name) for name in names}  # noqa: PTH118 - polled every millisecond
    return found


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str] | None = None, seconds: float = 60) -> bool:
    """Wait until something is so; false when the process ended before."""
    deadline = time.monotonic() + seconds
    while not happened():
        if process is not None and process.poll() is not None:
            return happened()
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)
    return True


def at_once(action: Callable[[], Awaitable[object]]) -> None:
    """Do something while the loop of this thread stands still: nothing else can come in between."""
    failures: list[BaseException] = []

    async def act() -> None:
        await action()

    def work() -> None:
        try:
            asyncio.run(act())
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


async def opened(repo: Path) -> Repository:
    """The repository that is there."""
    return await Repository.open(LocalStore(repo))


async def whole_backups(repo: Path) -> dict[str, Backup]:
    """Every backup by its label, once all that they name was read and found good."""
    repository = await opened(repo)
    report = await verify(repository, emit=quiet)
    assert report.sound, report.findings
    backups, damage = await repository.backups()
    assert not damage
    return {one.label: one for one in backups}


async def manifest_of(repo: Path, backup: Backup, stream: str) -> Manifest:
    """What a backup says of a stream."""
    entry = backup.stream(stream)
    assert entry, backup.streams
    return await (await opened(repo)).read_manifest(backup, entry)


async def rows_of(repo: Path, manifest: Manifest) -> list[Message]:
    """Every live message, proven while it is read."""
    repository = await opened(repo)
    return [row async for batch in live_batches(repository, manifest) for row in batch]


def sequences(*texts: str) -> set[int]:
    """The members of sequence sets."""
    ranges: Iterable[tuple[int, int]] = (one for text in texts for one in SequenceSet.decode(text).ranges())
    return {seq for low, high in ranges for seq in range(low, high + 1)}


def told(done: subprocess.CompletedProcess[str]) -> JsonDict:
    """The one JSON document that was printed."""
    document: JsonDict = json.loads(done.stdout)
    return document
