"""Velero 1.18 on a real node: what it stores of jetkeep's volume, and a namespace that comes back."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
import yaml

from tests.e2e_velero.conftest import Place, rendered, wait_for_location
from tests.e2e_velero.installation import CLAIM, SPACE, for_velero, namespace, with_component

pytestmark = [pytest.mark.e2e_velero, pytest.mark.timeout(600)]
MESSAGES = 500


async def publish(url: str) -> None:
    client = await nats.connect(url)
    js = client.jetstream()
    await js.add_stream(name="ORDERS", subjects=["orders.>"])
    for at in range(MESSAGES):
        await js.publish(f"orders.{at % 4}", b"order %d" % at)
    await client.close()


async def lose(url: str) -> None:
    client = await nats.connect(url)
    await client.jetstream().delete_stream("ORDERS")
    await client.close()


async def contents(url: str) -> list[tuple[int, str, bytes]]:
    client = await nats.connect(url)
    js = client.jetstream()
    found = [await js.get_msg("ORDERS", at) for at in range(1, MESSAGES + 1)]
    await client.close()
    return [(one.seq or 0, one.subject or "", one.data or b"") for one in found]


@pytest.fixture(scope="module")
def backed_up(place: Place) -> Iterator[Place]:
    """A namespace whose CronJob has made one backup, and whose volume nobody mounts now."""
    asyncio.run(publish(place.nats))
    place.cluster.apply(namespace(place.nats))
    place.cluster.kubectl("create", "job", "first", "--from=cronjob/jetkeep-backup", f"--namespace={SPACE}")
    job = place.cluster.wait_for_job(SPACE, "first")
    assert job["status"].get("succeeded") == 1, place.cluster.logs(SPACE, "job/first")
    yield place
    place.cluster.kubectl("delete", "namespace", SPACE, "--ignore-not-found", "--wait=false")


def test_of_a_volume_that_nobody_mounts_velero_stores_nothing_says_completed_and_check_finds_it(
    backed_up: Place,
) -> None:
    status, held = backed_up.saved("trap")
    assert status["phase"] == "Completed"
    assert "warnings" not in status
    assert held == []
    told = backed_up.jetkeep("check", "--velero", "--no-server", "--namespace", SPACE)
    assert re.search(rf"^FAILED .*stores nothing of claim {CLAIM} and says Completed", told.stdout, re.MULTILINE)
    audited = backed_up.jetkeep("audit", "--live", "--namespace", SPACE)
    assert audited.returncode == 30
    assert "JK026" in audited.stdout


def test_what_velero_leaves_out_by_our_policy_is_no_trap(backed_up: Place, tmp_path: Path) -> None:
    overlay = for_velero(tmp_path / "excluded", "volume-data-excluded", backed_up.seaweed.endpoint)
    backed_up.cluster.apply(rendered(backed_up.cluster, overlay))
    status, held = backed_up.saved("excluded")
    assert (status["phase"], held) == ("Completed", [])
    told = backed_up.jetkeep("check", "--velero", "--no-server", "--namespace", SPACE)
    assert f"leaves out what claim {CLAIM} holds" in told.stdout, told.stderr
    back = for_velero(tmp_path / "back", "schedule", backed_up.seaweed.endpoint)
    backed_up.cluster.kubectl("delete", "schedules.velero.io", "jetkeep", "--namespace=velero")
    backed_up.cluster.apply(rendered(backed_up.cluster, back))
    wait_for_location(backed_up.cluster)


def test_a_namespace_that_is_lost_comes_back_with_its_repository_and_from_that_every_message(
    backed_up: Place, tmp_path: Path
) -> None:
    cluster = backed_up.cluster
    cluster.apply(rendered(cluster, with_component(tmp_path / "keeper", "keeper", namespace(backed_up.nats))))
    cluster.kubectl("rollout", "status", "deployment/jetkeep-keeper", f"--namespace={SPACE}", "--timeout=60s")
    status, held = backed_up.saved("good")
    assert status["phase"] == "Completed"
    assert status["hookStatus"] == {"hooksAttempted": 1}
    assert [one["status"]["phase"] for one in held] == ["Completed"]
    told = backed_up.jetkeep("check", "--velero", "--no-server", "--namespace", SPACE)
    assert f"claim {CLAIM} is stored; backup good has it" in told.stdout, told.stderr
    assert "running exec hook" in backed_up.velero("backup", "logs", "good")

    before = asyncio.run(contents(backed_up.nats))
    volume = cluster.get("pvc", SPACE, CLAIM)["spec"]["volumeName"]
    cluster.kubectl("delete", "namespace", SPACE, "--timeout=60s")
    cluster.kubectl("delete", "pv", volume, "--wait=false")
    for left in backed_up.disks[int(volume.rpartition("-")[2])].iterdir():
        shutil.rmtree(left, ignore_errors=True)
    asyncio.run(lose(backed_up.nats))

    backed_up.velero("restore", "create", "back", "--from-backup", "good", "--wait")
    assert cluster.get("restores.velero.io", "velero", "back")["status"]["phase"] == "Completed"
    cluster.kubectl("rollout", "status", "deployment/jetkeep-keeper", f"--namespace={SPACE}", "--timeout=60s")
    claim = cluster.get("pvc", SPACE, CLAIM)
    assert (claim["status"]["phase"], claim["spec"]["volumeName"] != volume) == ("Bound", True)
    cluster.apply(job_of(cluster.get("cronjob", SPACE, "jetkeep-backup"), "restore", backed_up.nats))
    job = cluster.wait_for_job(SPACE, "restore")
    assert job["status"].get("succeeded") == 1, cluster.logs(SPACE, "job/restore")
    assert f"{MESSAGES} messages, compared with what was captured" in cluster.logs(SPACE, "job/restore")
    assert asyncio.run(contents(backed_up.nats)) == before


def test_a_hook_that_finds_damage_has_velero_say_so_and_copy_all_the_same(backed_up: Place) -> None:
    [segment, *_] = [path for disk in backed_up.disks for path in (disk / "sources").rglob("*") if path.is_file()]
    raw = segment.read_bytes()
    segment.chmod(0o600)
    segment.write_bytes(raw[: len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 1]) + raw[len(raw) // 2 + 1 :])
    status, held = backed_up.saved("damaged")
    assert status["phase"] == "PartiallyFailed"
    assert status["hookStatus"] == {"hooksAttempted": 1, "hooksFailed": 1}
    assert [one["status"]["phase"] for one in held] == ["Completed"]


def job_of(cronjob: dict[str, object], command: str, url: str) -> str:
    """A Job like the CronJob's, with another command."""
    spec = cronjob["spec"]["jobTemplate"]["spec"]  # type: ignore[index]
    spec["template"]["spec"]["containers"][0]["args"] = [command, "--repo", "/backups", "--server", url]
    metadata = {"name": command, "namespace": SPACE}
    return yaml.safe_dump({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
