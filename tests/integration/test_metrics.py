"""`jetkeep metrics` on real repositories and sources: what it says of what happened, and how it is given away."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.backing_up import run, start
from tests.conftest import StartServer
from tests.object_stores.seaweed import Bucket
from tests.publisher import Publisher

LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


def figures(text: str) -> dict[tuple[str, str], float]:
    """By name, and the labels' values in the order of the labels' names."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, labels, figure = LINE.findall(line)[0]
            found[name, " ".join(re.findall(r'="([^"]*)"', labels))] = float(figure)
    return found


async def publish(url: str, stream: str, count: int) -> None:
    async with Publisher(url) as publisher:
        await publisher.create(stream, storage="file")
        await publisher.store_all((f"{stream}.x", b"m", b"") for _ in range(count))


@pytest.fixture
def site(start_server: StartServer, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A source, and a configuration with a local repository and one in a bucket."""
    server = asyncio.run(start_server())
    asyncio.run(publish(server.url, "ORDERS", 9))
    (tmp_path / "jetkeep.toml").write_text(
        f"[repositories.local]\nurl = '{tmp_path}/local'\n[repositories.offsite]\nurl = '{bucket.url}'\n"
        f"[sources.shop]\nserver = '{server.url}'\nexclude = ['tmp-*']\n"
        f"[metrics]\ntextfile = '{tmp_path}/jetkeep.prom'\n"
    )
    monkeypatch.setenv("JETKEEP_CONFIG", str(tmp_path / "jetkeep.toml"))
    monkeypatch.delenv("JETKEEP_REPO", raising=False)
    return server.url


def metrics(*words: str) -> dict[tuple[str, str], float]:
    return figures(run("metrics", *words, repo="").stdout)


def test_what_happened_is_told(site: str, tmp_path: Path) -> None:
    run("backup", "--source", "shop", repo="")
    textfile = figures((tmp_path / "jetkeep.prom").read_text())
    assert textfile["jetkeep_backups", "local shop complete"] == 1
    now = metrics("--ask-sources")
    assert now["jetkeep_repository_up", "local"] == now["jetkeep_repository_up", "offsite"] == 1
    assert (now["jetkeep_repository_required", "local"], now["jetkeep_repository_required", "offsite"]) == (1, 0)
    assert (now["jetkeep_repository_behind_backups", "offsite"], now["jetkeep_streams_uncovered", "shop"]) == (0, 0)
    assert now["jetkeep_stream_last_sequence", "$G shop ORDERS"] == 9
    assert now["jetkeep_stream_lag_messages", "$G shop ORDERS"] == 0
    assert now["jetkeep_run_last_exit_status", "backup local"] == 0


def test_lag_and_streams_without_a_backup_are_told(site: str) -> None:
    run("backup", "--source", "shop", repo="")

    async def more() -> None:
        await publish(site, "tmp-x", 1)
        await publish(site, "NEW", 1)
        async with Publisher(site) as publisher:
            await publisher.store_all(("ORDERS.x", b"", b"") for _ in range(4))

    asyncio.run(more())
    now = metrics("--ask-sources")
    assert now["jetkeep_stream_lag_messages", "$G shop ORDERS"] == 4
    assert now["jetkeep_stream_lag_seconds", "$G shop ORDERS"] > 0
    assert now["jetkeep_streams_uncovered", "shop"] == 1  # tmp-x is left out on purpose


def test_a_repository_and_a_source_that_are_down_are_told_and_cost_no_other_figure(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("backup", "--source", "shop", repo="")
    toml = tmp_path / "jetkeep.toml"
    toml.write_text(toml.read_text().replace(site, "nats://127.0.0.1:1"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    run("backup", "--source", "shop", "--repo", "local", repo="", check=20)
    now = metrics("--ask-sources")
    assert (now["jetkeep_repository_up", "local"], now["jetkeep_repository_up", "offsite"]) == (1, 0)
    assert ("jetkeep_repository_bytes", "offsite") not in now
    assert now["jetkeep_source_up", "shop"] == 0
    assert now["jetkeep_run_last_exit_status", "backup local"] == 20
    assert now["jetkeep_runs_last_7d", "backup failure local"] == 1


def test_what_is_behind_damaged_and_rehearsed_is_told(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("backup", "--source", "shop", repo="")
    run("backup", "--source", "shop", "--repo", "local", repo="")
    run("drill", "--rto-target", "1ms", "--repo", "local", repo="", check=31)
    segment = next((tmp_path / "local").rglob("*.parquet"))
    segment.write_bytes(b"x")
    run("verify", "--repo", "local", repo="", check=30)
    now = metrics()
    assert now["jetkeep_repository_behind_backups", "offsite"] == 1
    assert now["jetkeep_repository_lag_seconds", "offsite"] > 0
    assert now["jetkeep_drill_last_success", "local"] == 0
    assert now["jetkeep_drill_rto_seconds", "local"] > 0
    assert now["jetkeep_verify_last_damage", "local"] == 1


def test_prometheus_own_checker_has_no_complaint(site: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    run("backup", "--source", "shop", repo="")
    run("drill", repo="")
    text = run("metrics", "--ask-sources", repo="").stdout
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_scrapes_are_served_and_make_no_work_of_their_own(site: str, tmp_path: Path) -> None:
    run("backup", "--source", "shop", repo="")
    process = start("metrics", "--listen", "127.0.0.1:0", "--every", "1h", repo="")
    try:
        assert process.stderr
        url = process.stderr.readline().split()[-1]
        first = urllib.request.urlopen(url).read()
        run("backup", "--source", "shop", repo="")
        assert urllib.request.urlopen(url).read() == first
        assert b'jetkeep_backups{repository="local",source="shop",status="complete"} 1.0' in first
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--textfile", "/nowhere/at/all.prom"), "metrics.textfile"),
        (("--push", "http://127.0.0.1:9"), "metrics.push"),
        (("--listen", "here"), "usage.address"),
    ],
)
def test_where_figures_cannot_go_is_told(site: str, words: tuple[str, str], code: str) -> None:
    assert code in run("metrics", *words, repo="", check=2).stderr


def test_a_text_file_that_cannot_be_written_costs_a_backup_nothing(site: str, tmp_path: Path) -> None:
    toml = tmp_path / "jetkeep.toml"
    toml.write_text(toml.read_text().replace(f"{tmp_path}/jetkeep.prom", "/nowhere/jetkeep.prom"))
    assert "cannot write the metrics" in run("backup", "--source", "shop", repo="").stderr
