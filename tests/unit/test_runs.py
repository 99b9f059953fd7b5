"""Records of runs: what they tell, when they go, and that they cost nothing else."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jetkeep.errors import AccessDeniedError
from jetkeep.expire import expire
from jetkeep.repository import layout, runs
from jetkeep.repository.documents import RunRecord
from jetkeep.repository.leases import rfc3339
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.retention import Policy
from jetkeep.verify import verify
from tests.repositories import files, new_repository, some_streams, take
from tests.restoring import quiet

NOW = datetime.now(UTC).replace(microsecond=0)


def run(age: timedelta = timedelta(), kind: str = "backup", **facts: object) -> RunRecord:
    finished = rfc3339(int((NOW - age).timestamp() * 1e9))
    told = {"kind": kind, "outcome": "success", "started_at": finished, "finished_at": finished, **facts}
    return RunRecord(**told)  # type: ignore[arg-type]


async def test_a_listing_tells_kind_outcome_and_time_and_the_record_the_rest(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    await runs.record(repository, run(timedelta(hours=1), outcome="failure", exit_status=20, error="nats.unreachable"))
    await runs.record(repository, run(streams=3, messages=70))
    first, second = await runs.runs(repository)
    assert (first.kind, first.outcome, second.outcome) == ("backup", "failure", "success")
    assert abs(second.finished - NOW) <= timedelta(microseconds=1)
    told = await runs.read(repository, first)
    assert told
    assert (told.exit_status, told.error, told.streams) == (20, "nats.unreachable", 0)
    path = tmp_path / second.key
    path.write_bytes(path.read_bytes()[:-5])
    assert await runs.read(repository, second) is None


@pytest.mark.parametrize(
    "key",
    [
        "runs/20261323T131500.000000Z-backup-success-0123456789abcdef.json",
        "runs/20261123T131500.000000Z-backup-maybe-0123456789abcdef.json",
        "runs/x.json",
    ],
)
async def test_what_is_no_record_is_ignored(tmp_path: Path, key: str) -> None:
    assert layout.run_of(key) is None
    repository = await new_repository(tmp_path)
    await repository.store.create(key, b"x")
    assert await runs.runs(repository) == []


async def test_expire_lets_old_records_go_and_nothing_else_sees_them(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    await take(repository, "one", some_streams())
    await runs.record(repository, run(timedelta(days=31)))
    await runs.record(repository, run(timedelta(days=29)))
    assert (await verify(repository, emit=quiet)).findings == []
    await expire(repository, Policy(last=1), now_ns=time.time_ns, emit=quiet)
    assert [one.finished for one in await runs.runs(repository)] == [NOW - timedelta(days=29)]


async def test_credentials_that_may_not_take_them_away_expire_all_the_same(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    for label in ("one", "two"):
        await take(repository, label, some_streams())
    await runs.record(repository, run(timedelta(days=31)))

    class Kept(LocalStore):
        async def delete(self, key: str) -> None:
            if key.startswith(layout.RUNS):
                raise AccessDeniedError("no")
            await super().delete(key)

    report = await expire(await Repository.open(Kept(tmp_path)), Policy(last=1), now_ns=time.time_ns, emit=quiet)
    assert report.expired == ["one"]
    assert [key for key in files(tmp_path) if key.startswith(layout.RUNS)]
