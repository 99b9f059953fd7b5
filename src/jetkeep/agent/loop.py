"""Wait for what is due, claim it, run it; one schedule's trouble is no other's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from jetkeep.agent import claims
from jetkeep.agent.child import Ended, run_child
from jetkeep.agent.schedule import Schedule
from jetkeep.errors import JetkeepError, NoRepositoryError
from jetkeep.repository.repository import Repository
from jetkeep.repository.store import Store

#: Takes an event's name and its facts.
Log = Callable[..., None]
#: Opens a repository; when that is wanted, creates it where nothing is.
Opener = Callable[[bool], Awaitable[Repository]]
Run = Callable[[list[str], Callable[[str], None], float | None], Awaitable[Ended]]

#: No sleep is longer: a clock that jumps, or a machine that was suspended, is noticed within so many seconds.
_NAP_S = 15.0
#: How often the repositories are asked for one that takes claims, and how long is waited in between, in seconds.
_ASKED, _PAUSE_S = 3, 10.0


class Agent:
    """All schedules of one configuration.

    Args:
        schedules: what is to be done when.
        openers: open the repositories, in order; claims lie in the first that answers.
        run: runs a command; see `run_child`.
        log: takes events.
        catch_up: how old a missed occurrence may be that is made good.
        now: the clock.
    """

    def __init__(
        self,
        schedules: Sequence[Schedule],
        openers: Sequence[Opener],
        run: Run,
        log: Log,
        *,
        catch_up: timedelta,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.schedules, self._openers, self._run, self._log = schedules, openers, run, log
        self._catch_up, self._now = catch_up, now
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._retired = False
        self.running: set[str] = set()
        self.next: dict[str, datetime] = {}
        self.beat = time.monotonic()

    async def work(self) -> None:
        """Do what is due, for ever; when cancelled, commands that run are told to stop and waited for."""
        async with asyncio.TaskGroup() as group:
            self._tasks = {one.name: group.create_task(self._follow(one)) for one in self.schedules}
            # No schedule's name has a blank.
            self._tasks["the heart"] = group.create_task(self._alive())

    def retire(self) -> None:
        """Begin nothing more: `work` ends with what runs now."""
        self._retired = True
        for name, task in self._tasks.items():
            if name not in self.running:
                task.cancel()

    async def _alive(self) -> None:
        while True:
            self.beat = time.monotonic()
            await asyncio.sleep(1)

    async def _follow(self, schedule: Schedule) -> None:
        occurrence = await self._missed(schedule) or schedule.after(self._now())
        while True:
            due = schedule.due(occurrence)
            self.next[schedule.name] = due
            await self._until(due)
            await self._occur(schedule, occurrence)
            if self._retired:
                return
            now = self._now()
            following = schedule.after(occurrence)
            if following <= now:
                # It took longer than until the next time, or the clock went ahead.
                newest = schedule.before(now)
                self._log("skipped", schedule=schedule.name, since=_text(following), until=_text(newest))
                following = schedule.after(now)
            occurrence = following

    async def _until(self, moment: datetime) -> None:
        # No event tells that a clock moved.
        while True:
            left = (moment - self._now()).total_seconds()
            if left <= 0:
                return
            await asyncio.sleep(min(left, _NAP_S))

    async def _missed(self, schedule: Schedule) -> datetime | None:
        """The newest occurrence that nobody claimed while nobody was there; None when it is too old, or nothing is known."""
        newest = schedule.before(self._now())
        if self._now() - newest > self._catch_up:
            return None
        try:
            repository = await self._repository()
            done = await claims.newest_of(repository.store, schedule.name)
            if done is None and schedule.kind == "backup":
                # Of a first start: only when there is no backup since. Whatever else is scheduled waits for its time.
                backups, _ = await repository.backups()
                done = max((one.started for one in backups), default=newest - timedelta(seconds=1))
        except NoRepositoryError:
            return newest if schedule.kind == "backup" else None
        except JetkeepError as failure:
            self._log("catch-up-unknown", schedule=schedule.name, why=failure.what, code=failure.code)
            return None
        if done is None or done >= newest:
            return None
        self._log("catch-up", schedule=schedule.name, occurrence=_text(newest))
        return newest

    async def _occur(self, schedule: Schedule, occurrence: datetime) -> None:
        try:
            await self._claim_and_run(schedule, occurrence)
        except JetkeepError as failure:
            self._log("failed", schedule=schedule.name, why=failure.what, code=failure.code)

    async def _claim_and_run(self, schedule: Schedule, occurrence: datetime) -> None:
        try:
            store = await self._store_for_claims(schedule)
        except NoRepositoryError as nothing:
            self._log("skipped", schedule=schedule.name, why=nothing.what)
            return
        if store is None:
            # Better twice than never: what is claimed is only who does it.
            await self._do(schedule, occurrence)
            return
        attempt: int | None = 1
        while attempt:
            claim = await claims.take(store, schedule.name, occurrence, attempt)
            if claim:
                async with claims.held(claim):
                    ended = await self._do(schedule, occurrence)
                    await claim.finish(ended.outcome)
                return
            self._log("elsewhere", schedule=schedule.name, occurrence=_text(occurrence))
            attempt = await claims.outlive(store, schedule.name, occurrence, attempt)
            if attempt:
                self._log("taken-over", schedule=schedule.name, occurrence=_text(occurrence))

    async def _store_for_claims(self, schedule: Schedule) -> Store | None:
        for asked in range(_ASKED):
            if asked:
                await asyncio.sleep(_PAUSE_S)
            try:
                return (await self._repository(create=schedule.kind == "backup")).store
            except NoRepositoryError:
                raise
            except JetkeepError as failure:
                self._log("no-claim", schedule=schedule.name, why=failure.what, code=failure.code)
        return None

    async def _repository(self, *, create: bool = False) -> Repository:
        first: JetkeepError | None = None
        for opener in self._openers:
            try:
                return await opener(create)
            except JetkeepError as failure:
                first = first or failure
        assert first
        raise first

    async def ready(self) -> str:
        """Why no claim could be made now; empty when one could."""
        try:
            await self._repository()
        except NoRepositoryError:
            pass  # the first backup makes it
        except JetkeepError as failure:
            return failure.what
        return ""

    async def _do(self, schedule: Schedule, occurrence: datetime) -> Ended:
        began = time.monotonic()
        async with self._noted(schedule):
            words = [schedule.kind, *schedule.arguments, "--json", "--quiet"]
            self._log("started", schedule=schedule.name, occurrence=_text(occurrence), command=words)

            def say(line: str) -> None:
                self._log("output", schedule=schedule.name, line=line)

            ended = await self._run(words, say, schedule.deadline_s)
        self._log(
            "ended",
            schedule=schedule.name,
            outcome=ended.outcome,
            exit_status=ended.status,
            seconds=round(time.monotonic() - began, 3),
            **ended.told,
            **({"deadline_passed": True} if ended.late else {}),
        )
        return ended

    @asynccontextmanager
    async def _noted(self, schedule: Schedule) -> AsyncIterator[None]:
        self.running.add(schedule.name)
        try:
            yield
        finally:
            self.running.discard(schedule.name)


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def runner(config: str) -> Run:
    """Runs commands as processes with this configuration."""

    async def run(words: list[str], say: Callable[[str], None], deadline_s: float | None) -> Ended:
        return await run_child(words, config, say, deadline_s=deadline_s)

    return run
