"""Restore one stream: closed, compared, and only then opened. Whatever goes wrong before leaves nothing behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from jetkeep.errors import ApiError, ComparisonError, JetkeepError, ServerError
from jetkeep.jetstream import JetStream
from jetkeep.model import Emit, JsonDict, Notice
from jetkeep.repository.repository import Repository
from jetkeep.restore.cancelling import to_its_end
from jetkeep.restore.comparing import Found, compare_messages, fingerprint_stream
from jetkeep.restore.consumers import compare as compare_consumer
from jetkeep.restore.decisions import Step
from jetkeep.restore.pausing import paused, wake
from jetkeep.restore.removal import APPEARS_BYTES_A_SECOND, APPEARS_S, remove_claimed, try_to_remove
from jetkeep.restore.report import ReadBack, StreamReport
from jetkeep.restore.sending import Progress, Sent, send
from jetkeep.restore.settling import losses_settle, replicas_follow
from jetkeep.restore.stage import claim_of, staged
from jetkeep.restore.target import Target


@dataclass(frozen=True, slots=True)
class Run:
    """What all streams of one restore share.

    `claim` marks unfinished streams as this run's. `turn` is held while a restore is under way at the server, or a
    stream is deleted: a single server from 2.11 on reads its list of streams without a lock when a restore begins, and
    the whole process ends when another one ends at that moment (`concurrent map iteration and map write`, 2.15.1).
    """

    repository: Repository
    js: JetStream
    target: Target
    claim: str
    pauses: bool
    emit: Emit
    now_ns: Callable[[], int]
    turn: asyncio.Semaphore


async def restore_stream(run: Run, step: Step, report: StreamReport) -> None:
    """Restore one stream of a plan; it takes publishes on return, and never before it was compared.

    `report` is filled as far as it goes.

    Raises:
        JetkeepError: it was not restored; what was there of it is removed, as far as the server answers.
    """
    progress = Progress()
    if step.leftover:
        claim = run.target.streams[step.name].claim
        async with run.turn:
            removed = await remove_claimed(run.js, step.name, claim)
        if removed:
            report.notes.append("an unfinished restore of this repository was removed first")
    try:
        sent = await _fill(run, step, report, progress)
        with _timed(report, "settle"):
            size = step.forecast.bytes
            await replicas_follow(run.js, step.name, size, int(step.config.get("num_replicas") or 1))
        with _timed(report, "compare"):
            await _prove(run, step, sent, report)
        with _timed(report, "open"):
            await _open(run, step)
    except BaseException as failure:
        if progress.requested:
            left = await to_its_end(_clean_up(run, step, progress))
            if left and isinstance(failure, JetkeepError):
                failure.hint = f"{left}; {failure.hint}" if failure.hint else left
        raise
    if run.pauses:
        report.notes += await wake(run.js, step.name, step.consumers)
    report.lost, report.appended = await losses_settle(run.js, step.manifest, step.name, step.forecast)
    report.status = "restored"
    for note in report.notes:
        run.emit(Notice(note, step.name))


async def _clean_up(run: Run, step: Step, progress: Progress) -> str:
    """Remove what this restore has made; what to tell when it cannot be done."""
    # Blocks make a stream only once they are all there, an archive makes it at once.
    may_appear = APPEARS_S + step.forecast.bytes / APPEARS_BYTES_A_SECOND if progress.ended else 0
    unseen = run.target.clustered and progress.accepted
    async with run.turn:
        return await try_to_remove(run.js, step.name, run.claim, may_appear, unseen=unseen)


async def _fill(run: Run, step: Step, report: StreamReport, progress: Progress) -> Sent:
    limits = run.target.limits(int(step.config.get("num_replicas") or 1))
    kind = "memory" if step.config.get("storage") == "memory" else "storage"
    bounded = bool(limits.get("max_bytes_required") or int(limits.get(f"{kind}_max_stream_bytes", 0)) > 0)
    config = staged(step.config, run.claim, bounded=bounded)
    sleeping = step
    if run.pauses:
        size, owner = step.manifest.bytes, run.repository.id
        asleep = paused(step.consumers, size, run.now_ns(), repository=owner, stream=step.name)
        sleeping = replace(step, consumers=asleep)
    try:
        sent = await send(run.repository, run.js, sleeping, config, emit=run.emit, progress=progress, turn=run.turn)
    except ApiError as refused:
        if refused.what.startswith("STREAM.RESTORE."):
            progress.requested = False  # refused before anything was made
        raise
    report.seconds |= sent.seconds
    return sent


async def _prove(run: Run, step: Step, sent: Sent, report: StreamReport) -> None:
    found = await fingerprint_stream(run.js, step.name, step.manifest.last_seq, emit=run.emit)
    report.read_back = ReadBack.of(found)
    allowed = sent.left_out + (step.forecast.losses.get("ttl", 0) + step.manifest.messages) * (step.writer == "archive")
    await compare_messages(run.repository, step.manifest, found, may_be_missing=allowed)
    _compare_bounds(step, found)
    wrong = [
        text for one in step.consumers for text in compare_consumer(one, found.consumers.get(one.name), step.writer)
    ]
    if wrong and run.target.clustered:
        wrong = await _ask_again(run, step)
    if wrong:
        raise ComparisonError(
            f"consumers of {step.manifest.stream} do not come back as they were captured: {'; '.join(wrong[:5])}",
            code="comparison.consumers",
            means="the restored stream was not opened and is removed; the backup is untouched",
            hint="if clients already read from it, stop them until the restore is done",
        )


def _compare_bounds(step: Step, found: Found) -> None:
    """First and last sequence, also of streams without messages."""
    manifest = step.manifest
    last = int(found.state.get("last_seq", 0))
    if last < manifest.last_seq or (last > manifest.last_seq and not step.config.get("mirror")):
        raise ComparisonError(
            f"{manifest.stream} ends at sequence {last}, not {manifest.last_seq}",
            code="comparison.bounds",
            means="the restored stream was not opened and is removed; the backup is untouched",
            hint="run it again; if it repeats, look at the target's log",
        )


async def _ask_again(run: Run, step: Step) -> list[str]:
    """A cluster's snapshot rolls consumers with pending messages back to their floor; its API tells better."""
    infos = {str(one["name"]): one for one in await run.js.consumers(step.name)}
    wrong = []
    for one in step.consumers:
        info = infos.get(one.name)
        if info is None:
            wrong.append(f"consumer {one.name} is missing")
            continue
        told = (info["delivered"]["stream_seq"], info["ack_floor"]["stream_seq"], info.get("num_ack_pending", 0))
        sent = (one.state.delivered.stream_seq, one.state.ack_floor.stream_seq, len(one.state.pending))
        if told != sent:
            wrong.append(f"consumer {one.name}: delivered, ack floor, pending are {told}, not {sent}")
    return wrong


async def _open(run: Run, step: Step) -> None:
    """Give the stream its real configuration."""
    try:
        answer = await run.js.update_stream(step.config)
    except ServerError:
        # The answer may be lost although the stream is open: then nothing may be removed.
        info = await run.js.find_stream(step.name)
        if info is None or claim_of(info["config"]):
            raise
        answer = info
    _check_config(step, answer["config"])


def _check_config(step: Step, config: JsonDict) -> None:
    unset: tuple[Any, ...] = (None, False, 0, "", [], {}, -1)
    for key, value in step.config.items():
        have = config.get(key)
        if key != "metadata" and value != have and not (value in unset and have in unset):
            raise ComparisonError(
                f"{step.name} is open, and {key} is {have!r} there, not {value!r}",
                code="comparison.config",
                means="the messages and consumers were compared and are all there",
                hint="set it with `nats stream edit`, and report this",
            )


@contextmanager
def _timed(report: StreamReport, phase: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        report.seconds[phase] = time.monotonic() - began
