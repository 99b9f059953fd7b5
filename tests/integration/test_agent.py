"""`jetkeep agent` as processes: what is due is done once, what is missed is made good, a signal ends it without harm."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jetkeep.agent import claims
from jetkeep.agent.child import Ended
from jetkeep.agent.loop import Agent
from jetkeep.agent.schedule import Schedule, schedules_of
from jetkeep.config.file import ScheduleTable
from jetkeep.model import JsonDict
from jetkeep.repository import layout
from jetkeep.repository.address import store_at
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from tests.backing_up import fill, run, told
from tests.conftest import StartServer
from tests.object_stores.seaweed import Bucket
from tests.repositories import new_repository

#: Its next time is far away, its last one too: only what is missed is done.
YEARLY = "0 0 1 1 *"


class Running:
    """An agent as a process."""

    def __init__(self, config: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "jetkeep", "agent", "--config", str(config)], stderr=subprocess.PIPE, text=True
        )
        self.events: list[JsonDict] = []

    def until(self, event: str, **facts: object) -> JsonDict:
        """The next such event; all before it are kept."""
        assert self._process.stderr
        for line in self._process.stderr:
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == event and facts.items() <= self.events[-1].items():
                return self.events[-1]
        raise AssertionError(f"no {event} in {self.events}")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; the exit status, within the ten seconds that Kubernetes is asked for."""
        self._process.terminate()
        _, rest = self._process.communicate(timeout=10)
        self.events += [json.loads(line) for line in rest.splitlines()]
        return self._process.returncode

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Running]]:
    monkeypatch.delenv("JETKEEP_REPO", raising=False)
    started: list[Running] = []

    def begin(config: Path) -> Running:
        started.append(Running(config))
        return started[-1]

    yield begin
    for one in started:
        one.kill()


def configuration(folder: Path, repository: str, server: str, *more: str) -> Path:
    path = folder / "jetkeep.toml"
    path.write_text(
        "\n".join(
            [
                f"[repositories.local]\nurl = '{repository}'\n[sources.shop]\nserver = '{server}'",
                "[agent]\nlisten = '127.0.0.1:0'\ncatch-up = '9000h'",
                f"[schedules.backup]\ncron = '{YEARLY}'\narguments = ['--source', 'shop']",
                *more,
            ]
        )
    )
    return path


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


@pytest.mark.parametrize("where", ["directory", "bucket"])
def test_of_two_replicas_one_makes_the_missed_backup_and_both_serve(
    start: Callable[[Path], Running], start_server: StartServer, bucket: Bucket, tmp_path: Path, where: str
) -> None:
    server = asyncio.run(start_server())
    asyncio.run(fill(server.url, "S", 1))
    repository = bucket.url if where == "bucket" else str(tmp_path / "repo")
    config = configuration(tmp_path, repository, server.url)
    replicas = [start(config), start(config)]
    urls = [one.until("listening")["url"] for one in replicas]
    deadline = time.monotonic() + 60
    while not (backups := told(run("info", "--json", repo=repository, check=None)).get("backups")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    for url in urls:
        assert get(f"{url}/healthz") == (200, "ok\n")
        assert get(f"{url}/readyz")[0] == 200
    status, text = get(f"{urls[0]}/metrics")
    assert status == 200
    assert 'jetkeep_repository_up{repository="local"} 1.0' in text
    assert "jetkeep_agent_config_ok 1.0" in text
    assert 'jetkeep_source_up{source="shop"} 1.0' in text
    assert [one.stop() for one in replicas] == [0, 0]
    events = [event for one in replicas for event in one.events]
    assert [one["outcome"] for one in events if one["event"] == "ended"] == ["success"]
    assert len(backups) == len(told(run("info", "--json", repo=repository))["backups"]) == 1
    # Both go on as if nothing had happened, and the work is not done again.
    again = start(config)
    again.until("scheduled")
    time.sleep(1)
    assert again.stop() == 0
    assert not [one for one in again.events if one["event"] == "started"]


def test_a_signal_ends_a_running_backup_without_harm(
    start: Callable[[Path], Running], start_server: StartServer, tmp_path: Path
) -> None:
    server = asyncio.run(start_server())
    asyncio.run(fill(server.url, "S", 96))
    agent = start(configuration(tmp_path, str(tmp_path / "repo"), server.url))
    agent.until("started")
    while not any((tmp_path / "repo").rglob("*.parquet*")):
        time.sleep(0.02)
    assert agent.stop() == 0
    assert not list((tmp_path / "repo").glob("leases/*"))
    assert told(run("verify", "--json", repo=tmp_path / "repo"))["sound"]


def test_a_changed_configuration_is_taken_and_a_wrong_one_refused(
    start: Callable[[Path], Running], start_server: StartServer, tmp_path: Path
) -> None:
    server = asyncio.run(start_server())
    config = configuration(tmp_path, str(tmp_path / "repo"), server.url)
    agent = start(config)
    url = agent.until("listening")["url"]
    agent.until("ended", schedule="backup")
    whole = config.read_text()
    config.write_text(whole + "\n[schedules.bakcup]\ncron = '0 2 * * *'\n")
    agent.signal(signal.SIGHUP)
    assert "bakcup" in agent.until("configuration-refused")["why"]
    assert get(f"{url}/readyz")[0] == 503
    assert get(f"{url}/healthz")[0] == 200
    assert "jetkeep_agent_config_ok 0.0" in get(f"{url}/metrics")[1]
    config.write_text(whole + "\n[schedules.verify]\ncron = '0 4 * * 0'\n")
    agent.signal(signal.SIGHUP)
    agent.until("configuration-taken")
    agent.until("scheduled", schedule="verify")
    assert get(f"{url}/readyz")[0] == 200
    assert agent.stop() == 0


def test_a_configuration_without_work_is_refused(tmp_path: Path) -> None:
    (tmp_path / "jetkeep.toml").write_text(f"[repositories.local]\nurl = '{tmp_path}/r'\n")
    done = run("agent", "--config", str(tmp_path / "jetkeep.toml"), repo="", check=2)
    assert "[schedules.KIND]" in done.stderr


# In this process, with a clock and commands of its own.


def schedule(kind: str = "verify", cron: str = "0 * * * *") -> Schedule:
    (found,) = schedules_of({kind: ScheduleTable(cron=cron)})
    return found


class Site:
    """An agent over a real repository, whose commands are only noted."""

    def __init__(self, root: Path, *schedules: Schedule, takes_s: float = 0, statuses: tuple[int, ...] = ()) -> None:
        self.root, self.ran, self.logged = root, list[str](), list[tuple[str, JsonDict]]()
        self._takes_s, self._statuses = takes_s, list(statuses)
        self.at = datetime(2026, 11, 24, 9, 59, 59, tzinfo=UTC)
        self._began = time.monotonic()
        self.agent = Agent(schedules, [self._open], self._run, self._log, catch_up=timedelta(hours=24), now=self._now)

    def _now(self) -> datetime:
        return self.at + timedelta(seconds=time.monotonic() - self._began)

    async def _open(self, create: bool) -> Repository:
        return await (new_repository(self.root) if create else Repository.open(LocalStore(self.root)))

    async def _run(self, words: list[str], say: Callable[[str], None], deadline_s: float | None) -> Ended:
        self.ran.append(words[0])
        await asyncio.sleep(self._takes_s)
        return Ended(self._statuses.pop(0) if self._statuses else 0)

    def _log(self, event: str, **facts: object) -> None:
        self.logged.append((event, facts))

    async def work(self, seconds: float) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.agent.work()

    def events(self, name: str) -> list[JsonDict]:
        return [facts for event, facts in self.logged if event == name]


async def test_what_fails_does_not_stop_what_else_is_scheduled(tmp_path: Path) -> None:
    await new_repository(tmp_path)
    site = Site(tmp_path, schedule("verify"), schedule("expire"), statuses=(30, 0))
    await site.work(1.5)
    assert sorted(site.ran) == ["expire", "verify"]
    assert sorted(one["outcome"] for one in site.events("ended")) == ["failure", "success"]
    claimed = [path.name for path in sorted((tmp_path / "claims").iterdir())]
    assert claimed == ["20261124T100000Z-expire-1.json", "20261124T100000Z-verify-1.json"]


async def test_what_was_missed_is_made_good_once_and_only_when_it_was_done_before(tmp_path: Path) -> None:
    await new_repository(tmp_path)
    site = Site(tmp_path, schedule("verify", "30 * * * *"))
    await site.work(0.3)
    assert site.ran == []  # of a first start: nothing was missed
    claim = await claims.take(LocalStore(tmp_path), "verify", datetime(2026, 11, 24, 8, 30, tzinfo=UTC))
    assert claim
    for expected in (["verify"], []):
        again = Site(tmp_path, schedule("verify", "30 * * * *"))
        await again.work(0.3)
        assert again.ran == expected


async def test_a_claim_of_a_dead_replica_is_taken_over_and_of_a_living_one_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LIFETIME_S", 0.6)
    monkeypatch.setattr(claims, "RENEWAL_S", 0.1)
    await new_repository(tmp_path)
    store, ten = LocalStore(tmp_path), datetime(2026, 11, 24, 10, tzinfo=UTC)
    living = await claims.take(store, "verify", ten)
    dead = await claims.take(store, "expire", ten)
    assert living
    assert dead
    assert await claims.take(store, "verify", ten) is None
    site = Site(tmp_path, schedule("verify"), schedule("expire"))
    async with claims.held(living):
        await site.work(3)
        assert site.ran == ["expire"]
        assert [one["schedule"] for one in site.events("taken-over")] == ["expire"]
    await living.finish("success")
    assert await claims.outlive(store, "verify", ten) is None


async def test_times_that_pass_while_a_command_still_runs_are_skipped_and_said(tmp_path: Path) -> None:
    await new_repository(tmp_path)
    site = Site(tmp_path, schedule("verify", "* * * * *"), takes_s=0.4)

    async def jump() -> None:
        while not site.ran:
            await asyncio.sleep(0.01)
        site.at += timedelta(minutes=5)

    jumping = asyncio.create_task(jump())
    await site.work(2)
    await jumping
    assert site.ran == ["verify"]
    assert site.events("skipped")


async def test_without_any_store_the_work_is_done_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetkeep.agent.loop._PAUSE_S", 0.05)
    (tmp_path / "file").write_text("and no folder")
    site = Site(tmp_path / "file", schedule("backup"))
    await site.work(2)
    assert site.ran == ["backup"], site.logged
    assert site.events("no-claim")


async def test_many_replicas_that_claim_at_once_have_one_winner(bucket: Bucket) -> None:
    stores = [store_at(bucket.url) for _ in range(8)]
    moment = datetime(2026, 11, 24, 10, tzinfo=UTC)
    taken = await asyncio.gather(*(claims.take(one, "backup", moment) for one in stores))
    assert len([one for one in taken if one]) == 1
    assert layout.claim_of(layout.claim_key(moment, "backup-x_1", 2)) == (moment, "backup-x_1", 2)
