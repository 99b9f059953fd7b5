"""What is done with a cluster, in the order in which it happens to somebody: install, back up, fail, lose, bring back."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.e2e_node.line import Listener
from tests.e2e_node.site import NAMESPACE, Site, container
from tests.kube.node import ADDRESS
from tests.matrix.looking import Look

pytestmark = pytest.mark.e2e_node


@pytest.fixture(scope="module")
def was(site: Site) -> dict[str, Look]:
    """A server with streams, and what they hold."""
    site.start_node("node-1")
    site.start_nats()
    site.fill()
    return site.look()


def test_one_command_installs_it(site: Site, was: dict[str, Look]) -> None:
    site.install()
    assert site.cluster.get("cronjob", NAMESPACE, "jetkeep-backup")["spec"]["concurrencyPolicy"] == "Forbid"
    enforced = site.cluster.get("namespace", NAMESPACE, NAMESPACE)["metadata"]["labels"]
    assert enforced["pod-security.kubernetes.io/enforce"] == "restricted"


def test_a_backup_is_done_within_15_seconds(site: Site, was: dict[str, Look]) -> None:
    first = site.run("jetkeep-backup", "first")
    assert first.well, first.said
    again = site.run("jetkeep-backup", "again")
    assert again.well, again.said
    note(f"job's creation to its completion: {first.seconds:.0f} s with a volume to make, {again.seconds:.0f} s after")
    assert again.seconds < 15
    assert site.files()


def test_a_job_restores_into_an_empty_server(site: Site, was: dict[str, Look]) -> None:
    site.lose_nats()
    done = site.run("jetkeep-restore", "restore-from-volume")
    assert done.well, done.said
    note(f"restore: {done.seconds:.0f} s")
    assert site.look() == was


def test_the_first_byte_comes_within_2_seconds_of_the_container_s_start(site: Site, was: dict[str, Look]) -> None:
    with Listener(ADDRESS, site.nats_url) as line:
        done = site.run(
            "jetkeep-backup",
            "timed",
            lambda spec: container(spec).setdefault("env", []).append({"name": "NATS_URL", "value": line.url}),
        )
    assert done.well, done.said
    note(f"container's start to the first byte from NATS: {line.first_byte - line.started:.2f} s")
    assert line.first_byte - line.started < 2


def test_sigterm_ends_a_backup_soon_and_another_takes_its_place(site: Site, was: dict[str, Look]) -> None:
    pod = site.start_slowly("told-to-end")
    # Else it is gone before anybody sees how it ended.
    site.patch_pod(pod, {"metadata": {"finalizers": ["tests.jetkeep/look"]}})
    since = time.monotonic()
    site.cluster.kubectl("delete", "pod", pod, f"--namespace={NAMESPACE}", "--wait=false")
    ended = site.how_ended(pod)
    took = time.monotonic() - since
    note(f"SIGTERM to the end: {took:.1f} s")
    said = site.cluster.logs(NAMESPACE, f"pod/{pod}")
    site.patch_pod(pod, {"metadata": {"finalizers": None}})
    assert (ended["exitCode"], took < 10) == (130, True), said
    assert "interrupted" in said
    assert site.ended("told-to-end", 180).well


def test_a_node_that_is_killed_costs_no_backup(site: Site, was: dict[str, Look]) -> None:
    site.start_slowly("killed")
    site.cluster.kill_node()
    site.cluster.start_node("node-1")
    done = site.ended("killed", 240)
    assert done.well, done.said
    verified = site.run("jetkeep-verify", "verify-after-kill", seconds=120)
    assert verified.well, verified.said


def test_a_backup_out_of_memory_is_killed_and_does_no_harm(site: Site, was: dict[str, Look]) -> None:
    def tight(spec: dict[str, Any]) -> None:
        spec["backoffLimit"] = 0
        container(spec)["resources"] = {"requests": {"memory": "48Mi"}, "limits": {"memory": "48Mi"}}

    before = site.files()
    assert not site.run("jetkeep-backup", "tight", tight).well
    (pod,) = site.pods("tight")
    assert site.how_ended(pod)["reason"] == "OOMKilled"
    assert before <= site.files()
    assert site.run("jetkeep-backup", "roomy").well


def test_a_full_volume_is_said_and_the_backup_is_off_site_all_the_same(site: Site, was: dict[str, Look]) -> None:
    folder = site.small_volume("small", megabytes=8)

    def into_the_small_one(spec: dict[str, Any]) -> None:
        spec["backoffLimit"] = 0
        (volume,) = (one for one in spec["template"]["spec"]["volumes"] if "persistentVolumeClaim" in one)
        volume["persistentVolumeClaim"]["claimName"] = "small"

    done = site.run("jetkeep-backup", "full", into_the_small_one)
    (pod,) = site.pods("full")
    assert not done.well
    # Partial: off-site has it.
    assert site.how_ended(pod)["exitCode"] == 3, done.said
    assert "store.full" in done.said
    assert "jetkeep copy --from offsite --to local" in done.said
    subprocess.run(["mount", "-o", "remount,size=200m", folder], check=True)
    again = site.run("jetkeep-backup", "full-no-more", into_the_small_one)
    assert again.well, again.said


@pytest.mark.parametrize("operation", ["backup-now", "expire", "verify", "drill"])
def test_every_job_that_is_there_to_be_started_by_hand_does_its_work(
    operation: str, site: Site, was: dict[str, Look]
) -> None:
    done = site.run(f"jetkeep-{operation}", f"{operation}-by-hand")
    assert done.well, done.said
    note(f"{operation}: {done.seconds:.0f} s")


def test_four_pods_share_the_streams(site: Site, was: dict[str, Look]) -> None:
    site.install("sharded")
    done = site.run("jetkeep-backup", "sharded")
    assert done.well, done.said
    assert len(site.pods("sharded")) == 4
    told = site.run("jetkeep-verify", "told", lambda spec: container(spec).update(args=["info", "--repo", "local"]))
    assert re.search(r"sharded.*4", told.said), told.said


def test_the_agent_is_ready_and_ends_within_10_seconds(site: Site, was: dict[str, Look]) -> None:
    site.install("agent")
    pod = site.ready_pod("app.kubernetes.io/component=agent")
    site.patch_pod(pod, {"metadata": {"finalizers": ["tests.jetkeep/look"]}})
    since = time.monotonic()
    site.cluster.kubectl("delete", f"--namespace={NAMESPACE}", "deployment/jetkeep-agent", "--wait=false")
    ended = site.how_ended(pod)
    took = time.monotonic() - since
    site.patch_pod(pod, {"metadata": {"finalizers": None}})
    note(f"agent: SIGTERM to the end: {took:.1f} s")
    assert (ended["exitCode"], took < 10) == (0, True)


def test_node_and_volumes_lost_one_job_brings_every_message_back_from_s3(site: Site, was: dict[str, Look]) -> None:
    site.lose_the_node()
    since = time.monotonic()
    site.start_node("node-2")
    site.start_nats()
    site.install(JETKEEP_IDENTITY=site.identity)
    done = site.run("jetkeep-restore", "disaster")
    assert done.well, done.said
    note(f"restore from S3: {done.seconds:.0f} s; from an empty node: {time.monotonic() - since:.0f} s")
    assert site.look() == was


def note(text: str) -> None:
    """A figure for whoever reads the run."""
    sys.stderr.write(f"\n    {text}\n")
