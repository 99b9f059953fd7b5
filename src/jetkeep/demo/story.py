"""The demo's steps, each measured; nothing is left running or lying about, whatever happens."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from jetkeep.capture.run import BackupOptions, BackupReport, back_up
from jetkeep.catalog import Chosen, choose_streams
from jetkeep.config import ConnectionSettings
from jetkeep.demo.shop import STREAMS, fill
from jetkeep.drill import DrillOptions, DrillReport, drill
from jetkeep.errors import ComparisonError, ServerError
from jetkeep.jetstream import JetStream, connect
from jetkeep.model import Emit, JsonDict, Notice
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.restore.decisions import RestoreOptions
from jetkeep.restore.run import restore
from jetkeep.sandbox import Sandbox, fetch_binary, find_binary, guarded_directory

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


Step = Callable[[str, DemoReport], None]


async def tell(*, emit: Emit, done: Step = lambda step, report: None) -> DemoReport:
    """Run the whole loop in a temporary directory; nothing of it is left, not even when this process is killed.

    Args:
        emit: takes events.
        done: is called after each of the steps fill, backup, lose, restore, compare, drill, with what is known by then.

    Raises:
        ServerError: no server could be started.
        ComparisonError: a stream could not be restored.
    """
    report = DemoReport()
    with guarded_directory("jetkeep-demo-") as guard:
        repository = await Repository.create(LocalStore(guard.folder / "repository"), now_ns=time.time_ns)
        before = await _live_and_die(repository, report, emit, done)
        async with Sandbox() as target:
            report.target_version = target.version
            if target.version == report.source_version and not report.notes:
                report.notes.append("both servers are of one version: it is the one that is installed")
            async with connect(ConnectionSettings(servers=(target.url,))) as js:
                chosen = await _bring_back(repository, js, report, emit)
                done("restore", report)
                with _timed(report, "compare"):
                    after = {name: await _look(js, name) for name in STREAMS}
        report.streams = [StreamStory(name, before[name], after[name]) for name in STREAMS]
        done("compare", report)
        with _timed(report, "drill"):
            options = DrillOptions(seed=random.randrange(2**31), triggered_by="demo")  # noqa: S311 - a sample
            report.drill = await drill(repository, chosen[0].backup, chosen, options, emit=emit)
        done("drill", report)
    return report


async def _source_version(report: DemoReport, emit: Emit) -> str | None:
    """The shop's version when it is there or can be had; else the installed one, and the story says so."""
    try:
        if find_binary(SOURCE_VERSION) is None:
            emit(Notice(f"fetching nats-server {SOURCE_VERSION}, which the shop will run"))
            await asyncio.to_thread(fetch_binary, SOURCE_VERSION)
    except ServerError as offline:
        report.notes.append(f"both servers are of one version, since {offline.what.partition(':')[0]}")
        return None
    return SOURCE_VERSION


async def _live_and_die(repository: Repository, report: DemoReport, emit: Emit, done: Step) -> dict[str, Seen]:
    async with Sandbox(await _source_version(report, emit)) as source:
        report.source_version = source.version
        with _timed(report, "fill"):
            await fill(source.url)
        done("fill", report)
        async with connect(ConnectionSettings(servers=(source.url,))) as js:
            before = {name: await _look(js, name) for name in STREAMS}
            with _timed(report, "backup"):
                options = BackupOptions(source="shop")
                report.backup = await back_up(js, repository, options, emit=emit, now_ns=time.time_ns)
        done("backup", report)
        source.kill()
    done("lose", report)
    return before


async def _bring_back(repository: Repository, js: JetStream, report: DemoReport, emit: Emit) -> list[Chosen]:
    assert report.backup is not None
    for name, failure in report.backup.failed.items():
        raise ComparisonError(f"the demo could not back up {name}: {failure.what}")
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
