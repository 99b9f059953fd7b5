"""Restore streams of a backup: plan, refuse or go on, then stream by stream, origins first."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from jetkeep.catalog import live_batches
from jetkeep.errors import JetkeepError, ServerError
from jetkeep.jetstream import JetStream
from jetkeep.model import Emit, Notice, StreamBegan, StreamEnded
from jetkeep.repository.documents import Manifest
from jetkeep.repository.leases import Lease, lease_if_possible, live_leases
from jetkeep.repository.repository import Repository
from jetkeep.restore.decisions import Plan, RestoreOptions, Step
from jetkeep.restore.forecast import Forecast, Scan
from jetkeep.restore.one_stream import Run, restore_stream
from jetkeep.restore.pausing import can_pause, wake_left_asleep
from jetkeep.restore.plan import drafts, make_plan
from jetkeep.restore.prepare import Draft
from jetkeep.restore.report import RestoreReport, StreamReport
from jetkeep.restore.survey import survey
from jetkeep.restore.target import Target

#: Streams that are restored at once, and their raw bytes unless one alone has more: each holds two segments in memory.
STREAMS_AT_ONCE = 6
BYTES_AT_ONCE = 48 * 1024 * 1024


async def plan_restore(
    repository: Repository,
    js: JetStream,
    manifests: Sequence[Manifest],
    options: RestoreOptions,
    *,
    now_ns: Callable[[], int],
    emit: Emit,
) -> tuple[Plan, Target]:
    """Look at the target and at the messages that its limits may drop, and plan; nothing is changed.

    Raises:
        ServerError: the target does not answer.
        BadDataError: a segment that had to be looked at is damaged.
        UsageError: the options contradict each other.
    """
    target = await survey(js)
    now = now_ns()
    drafted = drafts(manifests, target, options, now)
    forecasts = {}
    for one in drafted:
        if one.scan:
            emit(Notice(f"counting what the target would drop ({one.scan})", one.manifest.stream))
            forecasts[one.manifest.stream] = await count(repository, one, now)
    ends = {one.stream: one.last_seq for one in manifests}
    claims = await _dead_claims(repository, target, now)
    plan = make_plan(drafted, forecasts, target, options, now_ns=now, own_claims=claims, ends=ends)
    return plan, target


async def count(repository: Repository, one: Draft, now_ns: int) -> Forecast:
    """Look at every message of a stream and count what the target will drop."""
    scan = Scan(one.rules, now_ns)
    async for batch in live_batches(repository, one.manifest):
        await asyncio.to_thread(scan.first, batch)
    if scan.again:
        scan.begin_second()
        async for batch in live_batches(repository, one.manifest):
            await asyncio.to_thread(scan.second, batch)
    return scan.result()


async def restore(
    repository: Repository,
    js: JetStream,
    manifests: Sequence[Manifest],
    options: RestoreOptions,
    *,
    emit: Emit,
    now_ns: Callable[[], int] = time.time_ns,
    held: Lease | None = None,
) -> RestoreReport:
    """Restore the streams of these manifests, all of one backup or set.

    On return every stream with status `restored` was compared, message by message and consumer by consumer, and takes
    publishes; of a stream that failed nothing is left. One stream's failure does not stop the others.

    Args:
        repository, js: from where to where.
        manifests: the streams.
        options: how.
        emit: takes events.
        now_ns: the clock, ns since the epoch.
        held: the lease under which the caller reads this backup; None takes one.

    Raises:
        CannotRestoreError: the plan has refusals; nothing was changed.
        ServerError, StoreError, BadDataError: before anything was changed.
    """
    began = time.monotonic()
    async with _claimed(repository, manifests, now_ns, held) as claim:
        made, target = await plan_restore(repository, js, manifests, options, now_ns=now_ns, emit=emit)
        made.check()
        planned = time.monotonic() - began
        run = Run(repository, js, target, claim, await can_pause(js, target.version), emit, now_ns, _turns(target))
        reports = await _run_all(run, made)
    return RestoreReport(made, tuple(reports), time.monotonic() - began, planned)


def _turns(target: Target) -> asyncio.Semaphore:
    """How many restores may be under way at the server: see Run."""
    return asyncio.Semaphore(STREAMS_AT_ONCE if target.clustered else 1)


async def _run_all(run: Run, plan: Plan) -> list[StreamReport]:
    reports = {step.name: StreamReport(step) for step in plan.steps}
    done = {step.name: asyncio.Event() for step in plan.steps}
    slots = _Slots(STREAMS_AT_ONCE, BYTES_AT_ONCE)

    async def one(step: Step) -> None:
        try:
            for before in step.after:
                await done[before].wait()
            async with slots.taken(step.manifest.bytes):
                reports[step.name] = await _guarded(run, step)
        finally:
            done[step.name].set()

    async with asyncio.TaskGroup() as group:
        for step in plan.steps:
            group.create_task(one(step))
    return [reports[step.name] for step in plan.steps]


async def _guarded(run: Run, step: Step) -> StreamReport:
    if step.action == "skip":
        return StreamReport(step, "skipped", notes=[step.reason, *await _finish(run, step)])
    run.emit(StreamBegan(step.name, "restore", step.manifest.messages, step.manifest.bytes))
    report = StreamReport(step)
    try:
        await restore_stream(run, step, report)
    except JetkeepError as failure:
        run.emit(StreamEnded(step.name, "restore", failure.what))
        report.error = failure
        return report
    run.emit(StreamEnded(step.name, "restore"))
    return report


async def _finish(run: Run, step: Step) -> list[str]:
    """What a restore that was killed right after it opened this stream has not done."""
    if not run.pauses:
        return []
    try:
        return await wake_left_asleep(run.js, step.name, step.consumers, run.repository.id)
    except ServerError as failure:
        return [f"whether an earlier restore left consumers paused is not known: {failure.what}"]


class _Slots:
    """Lets streams through while few enough are under way and their bytes fit together; one alone always goes."""

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size
        self._running = self._used = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        size = min(size, self._size)
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self._running or (self._running < self._count and self._used + size <= self._size)
            )
            self._running += 1
            self._used += size
        try:
            yield
        finally:
            self._running -= 1
            self._used -= size
            async with self._changed:
                self._changed.notify_all()


@asynccontextmanager
async def _claimed(
    repository: Repository, manifests: Sequence[Manifest], now_ns: Callable[[], int], held: Lease | None
) -> AsyncIterator[str]:
    """Keep `expire` from the backup, and mark this run's unfinished streams with the lease that keeps it."""
    if held:
        yield f"{repository.id}/{held.document.nonce}"
        return
    labels = sorted({one.label for one in manifests})
    nonce = secrets.token_hex(8)
    async with lease_if_possible(repository.store, "read", now_ns=now_ns, labels=labels) as own:
        # Where the repository takes no lease, nobody else can tell whether this run lives.
        yield f"{repository.id}/{own.document.nonce if own else nonce}"


async def _dead_claims(repository: Repository, target: Target, now_ns: int) -> frozenset[str]:
    """Claims at the target that are of this repository and whose run is gone."""
    claims = {one.claim for one in target.streams.values() if one.claim.startswith(f"{repository.id}/")}
    if not claims:
        return frozenset()
    alive = {f"{repository.id}/{one.nonce}" for one in await live_leases(repository.store, now_ns)}
    return frozenset(claims - alive)
