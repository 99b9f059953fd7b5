"""The demo's steps, each measured; nothing is left running or lying about, whatever happens."""

from __future__ import annotations

import hashlib
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from jetkeep.capture.run import BackupOptions, BackupReport, back_up
from jetkeep.catalog import Chosen, choose_streams
from jetkeep.config import ConnectionSettings
from jetkeep.demo.shop import STREAMS, fill
from jetkeep.drill import DrillOptions, DrillReport, drill
from jetkeep.errors import ComparisonError, ServerError
from jetkeep.jetstream import JetStream, connect
from jetkeep.model import Emit, JsonDict
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.restore.decisions import RestoreOptions
from jetkeep.restore.run import restore
from jetkeep.sandbox import Sandbox
from jetkeep.sandbox.binaries import fetch_binary, find_binary

#: The version that the shop runs; the restore goes into the installed one, which is newer.
SOURCE_VERSION = "2.12"
_CONSUMER_FACTS = ("delivered", "ack_floor", "num_ack_pending", "num_pending", "num_redelivered")


@dataclass(frozen=True, slots=True)
class Seen:
    """A stream as an outsider sees it: read message by message over the API, and its consumers' positions."""

    messages: int
    first_seq: int
    last_seq: int
    digest: str
    consumers: dict[str, JsonDict]


@dataclass(frozen=True, slots=True)
class StreamStory:
    """One stream before the loss and after the restore."""

    name: str
    before: Seen
    after: Seen

    @property
    def equal(self) -> bool:
        """Every message, every sequence and every consumer is as it was."""
        return self.before == self.after


@dataclass(slots=True)
class DemoReport:
    """What was done and measured; `seconds` by step."""

    source_version: str = ""
    target_version: str = ""
    streams: list[StreamStory] = field(default_factory=list)
    backup: BackupReport | None = None
    drill: DrillReport | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """The story ended well."""
        return all(one.equal for one in self.streams) and self.drill is not None and self.drill.verdict == "SUCCESSFUL"


async def tell(*, emit: Emit) -> DemoReport:
    """Run the whole loop in a temporary directory.

    Raises:
        ServerError: no server could be started.
        ComparisonError: the restore did not give everything back.
    """
    report = DemoReport()
    version = _source_version(report)
    with tempfile.TemporaryDirectory(prefix="jetkeep-demo-") as folder:
        repository = await Repository.create(LocalStore(Path(folder, "repository")), now_ns=time.time_ns)
        before = await _live_and_die(repository, version, report, emit)
        async with Sandbox() as target:
            report.target_version = target.version
            async with connect(ConnectionSettings(servers=(target.url,))) as js:
                chosen = await _bring_back(repository, js, report, emit)
                with _timed(report, "compare"):
                    after = {name: await _look(js, name) for name in STREAMS}
        report.streams = [StreamStory(name, before[name], after[name]) for name in STREAMS]
        with _timed(report, "drill"):
            options = DrillOptions(seed=random.randrange(2**31), triggered_by="demo")  # noqa: S311 - a sample
            report.drill = await drill(repository, chosen, options, emit=emit)
    return report


def _source_version(report: DemoReport) -> str | None:
    """The shop's version when it is there or can be had; else the installed one, and the story says so."""
    try:
        if find_binary(SOURCE_VERSION) is None:
            fetch_binary(SOURCE_VERSION)
    except ServerError as offline:
        report.notes.append(f"both servers are of one version, since {offline.what}")
        return None
    return SOURCE_VERSION


async def _live_and_die(repository: Repository, version: str | None, report: DemoReport, emit: Emit) -> dict[str, Seen]:
    async with Sandbox(version) as source:
        report.source_version = source.version
        with _timed(report, "fill"):
            await fill(source.url)
        async with connect(ConnectionSettings(servers=(source.url,))) as js:
            before = {name: await _look(js, name) for name in STREAMS}
            with _timed(report, "backup"):
                options = BackupOptions(source="shop")
                report.backup = await back_up(js, repository, options, emit=emit, now_ns=time.time_ns)
        source.kill()
    return before


async def _bring_back(repository: Repository, js: JetStream, report: DemoReport, emit: Emit) -> list[Chosen]:
    assert report.backup is not None
    with _timed(report, "restore"):
        chosen = await choose_streams(repository, report.backup.backup)
        restored = await restore(repository, js, [one.manifest for one in chosen], RestoreOptions(), emit=emit)
    for failed in restored.failed:
        assert failed.error is not None
        raise ComparisonError(f"the demo could not restore {failed.step.name}: {failed.error.what}")
    return chosen


async def _look(js: JetStream, name: str) -> Seen:
    info = await js.stream_info(name)
    state = info["state"]
    digest = hashlib.sha256()
    count = 0
    if int(state["messages"]):
        # Message by message, without jetkeep's codecs, segments or fingerprints: a second opinion.
        async for message in js.messages(name, int(state["first_seq"]), int(state["last_seq"]), {}):
            digest.update(repr(tuple(message)).encode())
            count += 1
    consumers = {
        str(one["name"]): {
            fact: _positions(one[fact]) if isinstance(one[fact], dict) else one[fact] for fact in _CONSUMER_FACTS
        }
        for one in await js.consumers(name)
    }
    return Seen(count, int(state["first_seq"]), int(state["last_seq"]), digest.hexdigest(), consumers)


def _positions(told: JsonDict) -> JsonDict:
    """Both sequences, without the time of the last activity."""
    return {"consumer_seq": told["consumer_seq"], "stream_seq": told["stream_seq"]}


@contextmanager
def _timed(report: DemoReport, step: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    report.seconds[step] = time.monotonic() - began
