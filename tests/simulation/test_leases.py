"""Who is at work: leases of the living, the dead, the suspended, of other machines, and clocks that jump."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jetkeep.catalog import reading
from jetkeep.errors import AccessDeniedError, LockedError, UsageError
from jetkeep.repository import encoding, layout, leases
from jetkeep.repository.documents import LeaseDocument
from jetkeep.repository.leases import LIFETIME_NS, Lease, lease, live_leases, remove_dead_leases
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from tests.backing_up import run, told
from tests.conftest import StartServer
from tests.publisher import Publisher
from tests.repositories import BEGAN, Stream, files, new_repository, orders, take
from tests.restoring import eventually
from tests.wrong_clock import wrong_clock

SECOND_NS = 10**9
HOLD = """
import asyncio, sys, time
from pathlib import Path
from jetkeep.repository.leases import lease
from jetkeep.repository.local import LocalStore
async def hold():
    async with lease(LocalStore(Path(sys.argv[1])), "expire", now_ns=lambda: time.time_ns() + int(sys.argv[2])):
        print("held", flush=True)
        await asyncio.sleep(1000)
asyncio.run(hold())
"""


def holder(root: Path, clock_ns: int = 0) -> subprocess.Popen[str]:
    """Another process that holds an expire lease; its clock is off by so much."""
    command = [sys.executable, "-c", HOLD, str(root), str(clock_ns)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


async def purposes(root: Path, later_ns: int = 0) -> list[str]:
    return [one.purpose for one in await live_leases(LocalStore(root), time.time_ns() + later_ns)]


def rewrite(root: Path, **owner: str | int) -> LeaseDocument:
    """Change the owner in the one lease."""
    (path,) = root.glob("leases/*.json")
    document = encoding.unseal(path.read_bytes(), path.name, LeaseDocument)
    for name, value in owner.items():
        setattr(document.owner, name, value)
    path.write_bytes(encoding.seal(document))
    return document


async def test_a_lease_is_there_while_its_block_runs_whatever_ends_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    async with lease(store, "backup", now_ns=time.time_ns):
        assert await purposes(tmp_path) == ["backup"]
    assert files(tmp_path) == {}
    with pytest.raises(ZeroDivisionError):
        async with lease(store, "backup", now_ns=time.time_ns):
            raise ZeroDivisionError
    assert files(tmp_path) == {}

    async def hold() -> None:
        async with lease(store, "backup", now_ns=time.time_ns):
            await asyncio.sleep(1000)

    task = asyncio.create_task(hold())
    assert await eventually(lambda: purposes(tmp_path))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert files(tmp_path) == {}


async def test_a_run_that_is_cancelled_while_it_creates_its_lease_takes_it_away(tmp_path: Path) -> None:
    created = asyncio.Event()

    class Slow(LocalStore):
        async def create(self, key: str, data: bytes | memoryview, *, durable: bool = True) -> None:
            await super().create(key, data, durable=durable)
            created.set()
            await asyncio.sleep(0.05)

    async def hold() -> None:
        async with lease(Slow(tmp_path), "backup", now_ns=time.time_ns):
            pytest.fail("it was cancelled before")

    task = asyncio.create_task(hold())
    await created.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files(tmp_path) == {}


async def test_a_process_that_died_holds_nothing_and_its_lease_can_be_taken_away(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        assert await purposes(tmp_path) == ["expire"]
        await remove_dead_leases(LocalStore(tmp_path), time.time_ns())
        assert await purposes(tmp_path) == ["expire"]
    finally:
        process.kill()
        process.communicate()
    assert await purposes(tmp_path) == []
    await remove_dead_leases(LocalStore(tmp_path), time.time_ns())
    assert files(tmp_path) == {}


async def test_a_process_that_is_suspended_still_holds_its_lease(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        process.send_signal(signal.SIGSTOP)
        assert await purposes(tmp_path, LIFETIME_NS * 10) == ["expire"]
    finally:
        process.kill()
        process.communicate()
    assert await purposes(tmp_path) == []


async def test_a_running_process_with_a_wrong_clock_holds_its_lease(tmp_path: Path) -> None:
    process = holder(tmp_path, clock_ns=-LIFETIME_NS * 100)
    try:
        assert await purposes(tmp_path) == ["expire"]
    finally:
        process.kill()
        process.communicate()


async def test_another_process_with_the_same_number_is_not_the_owner(tmp_path: Path) -> None:
    async with lease(LocalStore(tmp_path), "expire", now_ns=time.time_ns):
        mine = leases.process(os.getpid())
        rewrite(tmp_path, process=mine.rpartition("/")[0] + "/1")
        assert await purposes(tmp_path) == []


@pytest.mark.parametrize("process", ["", "another boot/4026531836/1"])
async def test_the_lease_of_another_machine_is_live_until_it_ends(tmp_path: Path, process: str) -> None:
    async with lease(LocalStore(tmp_path), "expire", now_ns=time.time_ns):
        rewrite(tmp_path, host="elsewhere", process=process)
        assert await purposes(tmp_path) == ["expire"]
        assert await purposes(tmp_path, LIFETIME_NS - 10 * SECOND_NS) == ["expire"]
        assert await purposes(tmp_path, LIFETIME_NS + SECOND_NS) == []


async def test_a_damaged_lease_protects_everything_for_as_long_as_it_can_have_been_live(tmp_path: Path) -> None:
    async with lease(LocalStore(tmp_path), "read", now_ns=time.time_ns, labels=["monday"]):
        (path,) = tmp_path.glob("leases/*.json")
        path.write_bytes(path.read_bytes()[:-9])
        (found,) = await live_leases(LocalStore(tmp_path), time.time_ns())
        assert (found.purpose, found.labels) == ("read", ["*"])
        assert await purposes(tmp_path, LIFETIME_NS + 10 * SECOND_NS) == []


async def test_files_of_others_among_the_leases_are_none(tmp_path: Path) -> None:
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "notes.txt").write_text("mine")
    assert await purposes(tmp_path) == []
    await remove_dead_leases(LocalStore(tmp_path), time.time_ns())
    assert set(files(tmp_path)) == {"leases/notes.txt"}


class Clock:
    def __init__(self) -> None:
        self.ahead_ns = 0

    def __call__(self) -> int:
        return time.time_ns() + self.ahead_ns


async def committed(root: Path, held: Lease, label: str) -> list[str | None]:
    """Try to commit an empty backup under this lease; the labels that are there then."""
    repository = await new_repository(root)
    template = await take(repository, f"{label}-template", {})
    template.label = label
    await repository.commit(template, held)
    return [layout.label_of(key) for key in files(root) if key.startswith("backups/")]


async def test_a_lease_is_renewed_for_as_long_as_the_work_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEWAL_S", 0.01)
    repository = await new_repository(tmp_path)
    clock = Clock()
    async with lease(repository.store, "backup", now_ns=clock) as held:
        for _ in range(5):
            before = held.document.expires_at
            clock.ahead_ns += LIFETIME_NS // 2  # together far more than a lease lasts

            async def renewed(ends: str = before) -> bool:
                return held.document.expires_at > ends

            assert await eventually(renewed)
        assert "late" in await committed(tmp_path, held, "late")


@pytest.mark.parametrize("ahead_s", [245, 301, 100_000])
async def test_a_run_whose_lease_was_not_renewed_in_time_commits_nothing(tmp_path: Path, ahead_s: int) -> None:
    repository = await new_repository(tmp_path)
    clock = Clock()
    async with lease(repository.store, "backup", now_ns=clock) as held:
        clock.ahead_ns = ahead_s * SECOND_NS
        with pytest.raises(LockedError) as lapsed:
            await committed(tmp_path, held, "late")
        assert lapsed.value.code == "repository.lease-lapsed"
        assert "backups/late.json" not in files(tmp_path)


async def test_a_lease_that_ended_once_is_not_good_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by a clock that is set back nor by a renewal that comes too late: others may have ignored it meanwhile."""
    repository = await new_repository(tmp_path)
    clock = Clock()
    async with lease(repository.store, "backup", now_ns=clock) as held:
        clock.ahead_ns = 2 * LIFETIME_NS
        await held.renew()
        with pytest.raises(LockedError):
            held.check()
        clock.ahead_ns = 0
        with pytest.raises(LockedError):
            held.check()


async def test_a_clock_that_goes_back_neither_shortens_a_lease_nor_ends_the_run(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    clock = Clock()
    async with lease(repository.store, "backup", now_ns=clock) as held:
        before = held.document.expires_at
        clock.ahead_ns = -3600 * SECOND_NS
        await held.renew()
        assert held.document.expires_at == before
        assert "early" in await committed(tmp_path, held, "early")


async def test_a_backup_by_a_clock_that_went_back_keeps_its_label_and_what_is_there(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    label = BEGAN.strftime("%Y%m%d-%H%M%S")
    first = await take(repository, label, {"A": Stream([orders(1, 5)])}, started=BEGAN, relabel=True)
    again = await take(repository, label, {"A": Stream([orders(1, 6)])}, started=BEGAN, relabel=True)
    assert (first.label, again.label) == (label, f"{label}-2")
    assert [one.label for one in (await repository.backups())[0]] == [first.label, again.label]


async def test_whoever_waits_for_an_expire_goes_on_when_it_died(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    process = holder(tmp_path)
    try:
        waiting = asyncio.create_task(take(repository, "later", {}))
        await asyncio.sleep(0.3)
        assert not waiting.done()
    finally:
        process.kill()
        process.communicate()
    assert (await asyncio.wait_for(waiting, 10)).label == "later"


async def test_a_reader_whose_backup_went_just_before_is_told(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    backup = await take(repository, "monday", {})
    async with reading(repository, backup, now_ns=time.time_ns):
        assert await purposes(tmp_path) == ["read"]
    (tmp_path / "backups" / "monday.json").unlink()
    with pytest.raises(UsageError) as gone:
        async with reading(await Repository.open(LocalStore(tmp_path)), backup, now_ns=time.time_ns):
            pytest.fail("there is nothing to read")
    assert gone.value.code == "usage.no-such-backup"
    assert not list(tmp_path.glob("leases/*"))


# Clocks that are wrong by an hour, keys that may only add, leases that somebody takes away.

HOUR_NS = 3600 * SECOND_NS
ELSEWHERE = "another boot/4026531836/1"


@pytest.mark.parametrize("off_ns", [-HOUR_NS, HOUR_NS])
async def test_a_lease_written_by_a_wrong_clock_is_live_for_five_minutes_like_any_other(
    tmp_path: Path, off_ns: int
) -> None:
    async with lease(LocalStore(tmp_path), "backup", now_ns=lambda: time.time_ns() + off_ns):
        rewrite(tmp_path, host="elsewhere", process=ELSEWHERE)
        assert await purposes(tmp_path) == ["backup"]
        assert await purposes(tmp_path, LIFETIME_NS + SECOND_NS) == []


@pytest.mark.parametrize("off_ns", [-HOUR_NS, HOUR_NS])
async def test_whoever_has_a_wrong_clock_sees_the_same_leases_as_everybody_and_is_told(
    tmp_path: Path, off_ns: int
) -> None:
    told: list[str] = []
    store = LocalStore(tmp_path)
    async with lease(store, "expire", now_ns=time.time_ns):
        rewrite(tmp_path, host="elsewhere", process=ELSEWHERE)
        async with lease(store, "backup", now_ns=lambda: time.time_ns() + off_ns, tell=told.append) as held:
            assert [one.purpose for one in await held.others()] == ["expire"]
            with pytest.raises(LockedError):
                await held.wait_for_expire(patience_s=0)
            dead = (tmp_path / held.key).stat().st_mtime_ns - LIFETIME_NS - 5 * SECOND_NS
            (path,) = tmp_path.glob("leases/expire-*.json")
            os.utime(path, ns=(dead, dead))
            assert await held.others() == []
            held.check()
    (words,) = told
    assert "ahead of" in words if off_ns > 0 else "behind" in words
    assert re.search(r"\b(3599|3600|3601) seconds", words)


async def test_a_clock_that_is_set_back_does_not_make_a_lease_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, steady = Clock(), Clock()
    monkeypatch.setattr(leases, "_steady_ns", steady)
    async with lease(LocalStore(tmp_path), "backup", now_ns=clock) as held:
        clock.ahead_ns, steady.ahead_ns = -HOUR_NS, LIFETIME_NS
        with pytest.raises(LockedError):
            held.check()


class AppendOnly(LocalStore):
    """What credentials that can only add objects meet."""

    async def replace(self, key: str, data: bytes) -> None:
        if (Path(self.url) / key).exists():
            raise AccessDeniedError(f"no permission to overwrite {key}")
        await super().replace(key, data)

    async def delete(self, key: str) -> None:
        raise AccessDeniedError(f"no permission to delete {key}")


async def test_a_key_that_can_only_add_keeps_its_lease_under_other_names_and_says_what_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = await new_repository(tmp_path)
    told: list[str] = []
    clock = Clock()
    async with lease(AppendOnly(tmp_path), "backup", now_ns=clock, tell=told.append) as held:
        first = held.key
        await held.renew()
        clock.ahead_ns = LIFETIME_NS - 10 * SECOND_NS
        await held.renew()
        assert held.key != first
        assert len(list(tmp_path.glob("leases/*.json"))) == 3
        assert await held.others() == []
        assert "late" in await committed(tmp_path, held, "late")
    (words,) = [one for one in told if "may not delete" in one]
    assert held.key in words
    assert "ends by itself" in words
    for path in tmp_path.glob("leases/*.json"):
        document = encoding.unseal(path.read_bytes(), path.name, LeaseDocument)
        document.owner.process = ELSEWHERE
        path.write_bytes(encoding.seal(document))
    assert await purposes(tmp_path, LIFETIME_NS + SECOND_NS) == []
    await remove_dead_leases(repository.store, time.time_ns() + LIFETIME_NS + SECOND_NS)
    assert not list(tmp_path.glob("leases/*.json"))


async def test_a_run_whose_lease_was_taken_away_commits_nothing_and_does_not_bring_it_back(tmp_path: Path) -> None:
    await new_repository(tmp_path)
    async with lease(LocalStore(tmp_path), "backup", now_ns=time.time_ns) as held:
        (tmp_path / held.key).unlink()
        with pytest.raises(LockedError) as taken:
            await committed(tmp_path, held, "late")
        assert taken.value.code == "repository.lease-taken"
        await held.renew()
        assert not list(tmp_path.glob("leases/*.json"))
        assert "backups/late.json" not in files(tmp_path)


async def test_leases_that_pile_up_cost_no_reads(tmp_path: Path) -> None:
    reads: list[str] = []

    class Counting(LocalStore):
        async def read(self, key: str, max_bytes: int) -> bytes:
            reads.append(key)
            return await super().read(key, max_bytes)

    async with lease(LocalStore(tmp_path), "backup", now_ns=time.time_ns):
        (path,) = tmp_path.glob("leases/*.json")
        old = time.time_ns() - 2 * HOUR_NS
        for at in range(50):
            left = tmp_path / "leases" / f"backup-{at:016x}.json"
            left.write_bytes(path.read_bytes())
            os.utime(left, ns=(old, old))
        assert len(await live_leases(Counting(tmp_path), time.time_ns())) == 1
        assert len(reads) == 1


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_backup_by_a_clock_that_is_an_hour_wrong_is_made_and_tells_and_nothing_is_expired_by_it(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    server = asyncio.run(start_server())
    repo = tmp_path / "r"
    asyncio.run(some(server.url))
    run("backup", repo=repo, url=server.url)
    for name, value in wrong_clock(tmp_path, seconds).items():
        monkeypatch.setenv(name, value)
    done = run("backup", "--label", "wrong", repo=repo, url=server.url)
    assert f"{'ahead of' if seconds > 0 else 'behind'} the store's" in done.stderr
    done = run("expire", "--keep-last", "1", "--json", repo=repo, check=13)
    assert told(done)["error"]["code"] == "store.clock"
    assert len(told(run("info", "--json", repo=repo))["backups"]) == 2


async def some(url: str) -> None:
    async with Publisher(url) as publisher:
        await publisher.create("A", storage="file", subjects=["A.>"])
        await publisher.store_all((f"A.{at}", b"x", b"") for at in range(20))
