"""Record what `jetkeep metrics` says of a site that works, and of one in which something is broken: real servers, real runs.

    python -m tests.monitoring.record [SCENARIO]...

writes tests/monitoring/recorded/SCENARIO.prom; the first line of each is when. Needs to be allowed to mount a tmpfs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.sandbox import Sandbox
from tests import conftest  # noqa: F401 - the settings of whoever runs this must not count
from tests.backing_up import run, start, wait_for
from tests.mounts import small_disk
from tests.object_stores.seaweed import Seaweed
from tests.publisher import Publisher
from tests.repositories import Stream, orders, take
from tests.versions import NEWEST
from tests.wrong_clock import wrong_clock

RECORDED = Path(__file__).parent / "recorded"
NO_STORE = "http://127.0.0.1:9"


@dataclass
class Site:
    """A source `shop` with a stream, a repository `local` on a small volume, and one `offsite` in a bucket."""

    folder: Path
    server: Sandbox
    offsite: str

    def write(self, more: str = "", *, required: bool = False) -> None:
        """Its configuration."""
        (self.folder / "jetkeep.toml").write_text(
            f"[repositories.local]\nurl = '{self.folder}/volume/local'\n"
            f"[repositories.offsite]\nurl = '{self.offsite}'\nrequired = {str(required).lower()}\n"
            f"[sources.shop]\nserver = '{self.server.url}'\n{more}"
        )

    def publish(self, stream: str, count: int) -> None:
        async def act() -> None:
            async with Publisher(self.server.url) as publisher:
                await publisher.create(stream, storage="file")
                await publisher.store_all((f"{stream}.x", b"m", b"") for _ in range(count))

        asyncio.run(act())

    def backup(self, *words: str, check: int | None = 0) -> None:
        run("backup", "--source", "shop", *words, repo="", check=check)

    def work(self) -> None:
        """A whole week's work, and all of it well."""
        self.backup()
        run("drill", "--next-due", "8", "--repo", "local", repo="")
        run("verify", "--repo", "local", repo="")
        run("expire", "--keep-last", "3", "--repo", "local", repo="")

    def work_and_wait(self) -> None:
        """The same, for a scenario that runs one of its commands once more: records tell moments by the second."""
        self.work()
        time.sleep(1.1)

    def local(self) -> Repository:
        return asyncio.run(Repository.open(LocalStore(self.folder / "volume" / "local")))

    def fill(self, share: float) -> None:
        """Use so much of the volume."""
        usage = shutil.disk_usage(self.folder / "volume")
        (self.folder / "volume" / "other").write_bytes(b"x" * int(usage.total * share - usage.used))


@contextlib.contextmanager
def site() -> Iterator[Site]:
    """The site, and the environment that its commands need; nothing is left of it."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="jetkeep-monitoring-") as name, Seaweed() as store:
        folder, server = Path(name), Sandbox(NEWEST)
        store.create_bucket("tests")
        os.environ.update(store.environment(), JETKEEP_CONFIG=str(folder / "jetkeep.toml"))
        with contextlib.closing(server), small_disk(folder / "volume", "16m"):
            asyncio.run(server.start())
            here = Site(folder, server, "s3://tests/shop")
            here.write()
            here.publish("ORDERS", 9)
            try:
                yield here
            finally:
                os.environ.clear()
                os.environ.update(before)


def healthy(here: Site) -> None:
    here.work()


def backup_failed(here: Site) -> None:
    """The server is gone, and comes back after the backup."""
    here.work_and_wait()
    asyncio.run(here.server.stop())
    here.backup("--repo", "local", check=20)


def store_down(here: Site) -> None:
    here.work()
    os.environ["AWS_ENDPOINT_URL"] = NO_STORE


def required_store_down(here: Site) -> None:
    here.work()
    here.write(required=True)
    os.environ["AWS_ENDPOINT_URL"] = NO_STORE


def stale_offsite(here: Site) -> None:
    """Two backups that the other repository lacks, the first of them made by a clock of 49 hours ago."""
    here.offsite = str(here.folder / "volume" / "offsite")
    here.write()
    with shifted(here, -50):
        here.backup()
    with shifted(here, -49):
        here.backup("--repo", "local")
    here.backup("--repo", "local")
    run("drill", "--next-due", "8", "--repo", "local", repo="")


def no_backup(here: Site) -> None:
    run("init", "--repo", "local", repo="")
    os.environ["AWS_ENDPOINT_URL"] = NO_STORE  # the bucket is not ready either


def uncovered(here: Site) -> None:
    here.work()
    here.publish("NEW", 1)


def gap(here: Site) -> None:
    """No server loses messages on demand: the backup with a gap is written as capture writes one."""
    here.work()
    streams = {"ORDERS": Stream([orders(1, 4)], gaps=[((5, 6), "the server lost them")])}
    asyncio.run(take(here.local(), "gap", streams, started=datetime.now(UTC), source="shop"))
    run("copy", "--from", "local", "--to", "offsite", repo="")


def damage(here: Site) -> None:
    here.work_and_wait()
    next((here.folder / "volume").rglob("*.parquet")).write_bytes(b"x")
    run("verify", "--repo", "local", repo="", check=30)


def drill_failed(here: Site) -> None:
    here.work_and_wait()
    run("drill", "--rto-target", "1ms", "--next-due", "8", "--repo", "local", repo="", check=31)


def drill_broken(here: Site) -> None:
    """What it would restore is gone."""
    here.work_and_wait()
    for one in (here.folder / "volume" / "local").rglob("*.parquet"):
        one.unlink()
    run("drill", "--next-due", "8", "--repo", "local", repo="", check=30)


def never_drilled(here: Site) -> None:
    here.backup()


def copy_failed(here: Site) -> None:
    """What the bucket lacks is damaged in the first repository."""
    here.work()
    there = {*(here.folder / "volume").rglob("*.parquet")}
    here.publish("NEW", 5)
    here.backup("--repo", "local")
    for one in {*(here.folder / "volume").rglob("*.parquet")} - there:
        one.write_bytes(b"x")
    run("copy", "--from", "local", "--to", "offsite", repo="", check=None)


def volume_85(here: Site) -> None:
    here.work()
    here.fill(0.85)


def volume_97(here: Site) -> None:
    here.work()
    here.fill(0.97)


def agent_refused(here: Site) -> None:
    """An agent whose configuration becomes wrong while it runs: recorded is what it serves itself."""
    here.work()


@contextlib.contextmanager
def shifted(here: Site, hours: int) -> Iterator[None]:
    """The commands' clock is wrong by so much."""
    variables = wrong_clock(here.folder, hours * 3600)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


def told(here: Site) -> str:
    return run("metrics", "--ask-sources", repo="").stdout


@contextlib.contextmanager
def refusing_agent(here: Site) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """An agent whose configuration became wrong while it runs, and where it serves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    more = f"[agent]\nlisten = '{address}'\n[schedules.backup]\ncron = '0 2 * * *'\n"
    here.write(more)
    agent = start("agent", repo="")
    try:
        wait_for(lambda: "jetkeep_agent_config_ok 1" in scraped(address), agent)
        here.write(more + "nonsense = 1\n")
        agent.send_signal(signal.SIGHUP)
        wait_for(lambda: "jetkeep_agent_config_ok 0" in scraped(address), agent)
        yield address, agent
    finally:
        agent.terminate()
        agent.wait(20)


def told_by_agent(here: Site) -> str:
    """What it serves then."""
    with refusing_agent(here) as (address, _):
        return scraped(address)


def scraped(address: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


SCENARIOS: dict[str, Callable[[Site], None]] = {
    one.__name__.replace("_", "-"): one
    for one in (
        healthy, backup_failed, store_down, required_store_down, stale_offsite, no_backup, uncovered, gap, damage,
        drill_failed, drill_broken, never_drilled, copy_failed, volume_85, volume_97, agent_refused,
    )
}  # fmt: skip


def main() -> None:
    RECORDED.mkdir(exist_ok=True)
    for name in sys.argv[1:] or SCENARIOS:
        with site() as here:
            SCENARIOS[name](here)
            text = told_by_agent(here) if name == "agent-refused" else told(here)
            figures = [line for line in text.splitlines() if line and not line.startswith("#")]
            (RECORDED / f"{name}.prom").write_text(f"# {int(time.time())}\n" + "\n".join(figures) + "\n")
            print(name, len(figures))  # noqa: T201


if __name__ == "__main__":
    main()
