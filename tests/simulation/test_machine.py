"""Any order of backups, expires, pins, readers, days and crashes, against a plain model of what must be there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jetkeep.expire import GRACE_NS, ExpireReport, expire
from jetkeep.model import Message
from jetkeep.repository import layout
from jetkeep.repository.leases import lease
from jetkeep.repository.local import LocalStore
from jetkeep.repository.pins import pin, unpin
from jetkeep.repository.repository import Repository
from jetkeep.retention import Candidate, Policy, decide
from jetkeep.verify import verify
from tests.repositories import HOUR_NS, Stream, orders, read_back, take
from tests.restoring import quiet
from tests.simulation.faulty import CRASHES, Call, Crash, FaultyStore, at, bury

#: Runs of rows, so that backups share some segments and not others.
RUNS = st.sampled_from([[0, 1], [0], [1, 2], [], [0, 2, 3], [4]])
CRASH = st.sampled_from([None, None, None, *CRASHES])
POLICIES = st.sampled_from(
    [Policy(last=1), Policy(daily=2), Policy(last=1, tags=("a",)), Policy(weekly=2), Policy(last=3)]
)


@dataclass
class Known:
    """A backup as the model has it."""

    rows: dict[str, list[Message]]
    candidate: Candidate


def works(_: Call) -> None:
    """No fault."""


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="jetkeep-machine-"))
        self.model: dict[str, Known] = {}
        self.pins: set[str] = set()
        self.reading: dict[str, contextlib.AsyncExitStack] = {}
        self.moment = datetime.now(UTC) - timedelta(days=3000)
        self.number = 0
        self.loop = asyncio.new_event_loop()

    def teardown(self) -> None:
        for stack in self.reading.values():
            self.do(stack.aclose())
        self.loop.close()
        shutil.rmtree(self.root)

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def attempt(self, work: Any) -> Any:
        """What the work gives, None when it crashed; then its leases are a dead process's."""
        try:
            return self.do(work)
        except Crash:
            self.do(self.bury_but_readers())
            return None

    async def bury_but_readers(self) -> None:
        readers = {path: path.read_bytes() for path in self.root.glob("leases/read-*")}
        await bury(self.root)
        for path, data in readers.items():
            path.write_bytes(data)

    @initialize()
    def create(self) -> None:
        self.do(Repository.create(LocalStore(self.root), now_ns=time.time_ns))
        for runs in ([0], [0, 1], [1, 2], [2, 3]):
            self.backup(runs, [0, 1], 10, len(runs) == 1, False, None, 0)

    @rule(
        first=RUNS,
        second=RUNS,
        hours=st.sampled_from([1, 25, 200]),
        tagged=st.booleans(),
        failed=st.sampled_from([False, False, False, True]),
        crash=CRASH,
        number=st.integers(1, 20),
    )
    def backup(
        self,
        first: list[int],
        second: list[int],
        hours: int,
        tagged: bool,
        failed: bool,
        crash: str | None,
        number: int,
    ) -> None:
        self.moment += timedelta(hours=hours, seconds=1)
        self.number += 1
        label = f"b{self.number}"
        streams = {
            "ORDERS": Stream([orders(run * 10 + 1, run * 10 + 4) for run in first]),
            "OTHER": Stream([orders(run * 10 + 1, run * 10 + 4) for run in second]),
        }
        tags = ["a"] if tagged else []

        async def work() -> None:
            repository = await Repository.open(FaultyStore(self.root, at(number, crash) if crash else works))
            await take(repository, label, streams, started=self.moment, tags=tags, failed=["BROKEN"] if failed else [])

        self.attempt(work())
        if (self.root / layout.backup_key(label)).exists():
            rows = {name: stream.live() for name, stream in streams.items()}
            candidate = Candidate(label, "nats", self.moment, complete=not failed, tags=frozenset(tags))
            self.model[label] = Known(rows, candidate)

    @rule(policy=POLICIES, grace=st.sampled_from([-HOUR_NS, GRACE_NS]), crash=CRASH, number=st.integers(1, 45))
    def expire(self, policy: Policy, grace: int, crash: str | None, number: int) -> None:
        candidates = [
            Candidate(**{**_fields(one.candidate), "pinned": "" if label in self.pins else None})
            for label, one in self.model.items()
        ]
        let_go = {one.candidate.label for one in decide(candidates, policy, datetime.now(UTC)) if not one.keep}
        let_go -= set(self.reading)

        async def work() -> ExpireReport:
            repository = await Repository.open(FaultyStore(self.root, at(number, crash) if crash else works))
            return await expire(repository, policy, now_ns=time.time_ns, emit=quiet, grace_ns=grace)

        report = self.attempt(work())
        left = {layout.label_of(f"backups/{path.name}") for path in self.root.glob("backups/*.json")}
        if report is None:
            assert self.model.keys() - let_go <= left <= self.model.keys()
        else:
            assert set(report.expired) == let_go
            assert left == self.model.keys() - let_go
            if grace < 0 and not self.reading:
                assert not report.kept_back
                assert self.do(self.stored()) == self.do(self.named())
        self.model = {label: one for label, one in self.model.items() if label in left}

    async def stored(self) -> set[str]:
        return {info.key async for info in LocalStore(self.root).list(layout.SOURCES)}

    async def named(self) -> set[str]:
        repository = await Repository.open(LocalStore(self.root))
        found = set()
        for backup in (await repository.backups())[0]:
            for entry in backup.streams:
                if entry.manifest:
                    manifest = await repository.read_manifest(backup, entry)
                    found |= {entry.manifest.key, *(one.key for one in manifest.segments)}
        return found

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        label = data.draw(st.sampled_from(sorted(self.model)))
        self.do(pin(self.repository(), label, "", now_ns=time.time_ns))
        self.pins.add(label)

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        label = data.draw(st.sampled_from(sorted(self.pins)))
        self.do(unpin(self.repository(), label))
        self.pins.remove(label)

    @precondition(lambda self: self.model.keys() - self.reading.keys())
    @rule(data=st.data())
    def begin_reading(self, data: st.DataObject) -> None:
        label = data.draw(st.sampled_from(sorted(self.model.keys() - self.reading.keys())))
        stack = contextlib.AsyncExitStack()
        held = lease(LocalStore(self.root), "read", now_ns=time.time_ns, labels=[label])
        self.do(stack.enter_async_context(held))
        self.reading[label] = stack

    @precondition(lambda self: self.reading)
    @rule(data=st.data())
    def end_reading(self, data: st.DataObject) -> None:
        label = data.draw(st.sampled_from(sorted(self.reading)))
        self.do(self.reading.pop(label).aclose())

    @rule()
    def a_day_and_more_goes_by(self) -> None:
        for path in self.root.rglob("*"):
            if path.is_file() and "leases" not in path.parts:
                then = path.stat().st_mtime - 2 * 86400
                os.utime(path, (then, then))

    def repository(self) -> Repository:
        found: Repository = self.do(Repository.open(LocalStore(self.root)))
        return found

    @invariant()
    def what_was_committed_is_there_and_whole(self) -> None:
        if (self.root / "jetkeep.json").exists():
            self.do(self.check())

    async def check(self) -> None:
        repository = await Repository.open(LocalStore(self.root))
        backups, damage = await repository.backups()
        assert not damage
        assert {one.label for one in backups} == self.model.keys()
        for backup in backups:
            known = self.model[backup.label]
            assert (backup.status == "complete") == known.candidate.complete
            for name, rows in known.rows.items():
                assert await read_back(repository, backup, name) == rows
        assert (await verify(repository, emit=quiet)).sound


def _fields(candidate: Candidate) -> dict[str, Any]:
    return {name: getattr(candidate, name) for name in candidate.__slots__}


def _run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_whatever_happens_in_whatever_order_nothing_committed_is_lost() -> None:
    _run(12, 12)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_whatever_happens_in_whatever_order_many_times() -> None:
    _run(150, 40)
