"""Every overlay on a real API server: it takes all of them without a warning, and its controllers make of them what we mean."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.deploy.overlays import DEPLOY, OVERLAYS, text_of
from tests.deploy.test_helm import CHART, VALUES, helmed
from tests.kube import private
from tests.kube.binaries import kubernetes
from tests.kube.local_path import provisioner
from tests.kube.node import Cluster

pytestmark = pytest.mark.e2e_api

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda one: one.name)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if not private.inside():
        pytest.skip("make e2e-api runs this in namespaces of its own")
    kube, volumes = kubernetes(build=False), provisioner(build=False)
    if not (kube and volumes and shutil.which("etcd")):
        pytest.skip("not there: etcd, or what make e2e-api builds")
    with (
        tempfile.TemporaryDirectory(prefix="jetkeep-api-") as folder,
        Cluster(Path(folder), kube, volumes) as running,
    ):
        running.apply((DEPLOY / "kustomize/base/namespace.yaml").read_text())
        yield running


@every_overlay
def test_the_server_takes_it_without_a_warning(cluster: Cluster, overlay: Path) -> None:
    told = cluster.kubectl("apply", "--dry-run=server", "--warnings-as-errors", "-f", "-", stdin=text_of(overlay))
    assert "Warning" not in told.stdout + told.stderr


def _has_pods(cluster: Cluster, job: str, count: int) -> bool:
    return len(cluster.pods("jetkeep", f"batch.kubernetes.io/job-name={job}")) == count


@every_overlay
def test_jobs_and_pods_are_made_of_what_was_applied(cluster: Cluster, overlay: Path) -> None:
    cluster.kubectl("apply", "--warnings-as-errors", "-f", "-", stdin=text_of(overlay))
    jobs = [one["metadata"]["name"] for one in cluster.get("cronjobs", "jetkeep")["items"]]
    for name in jobs:
        job = f"{overlay.name}-{name}"[:60]
        cluster.kubectl("create", "job", job, "--namespace=jetkeep", f"--from=cronjob/{name}")
        wanted = 4 if (overlay.name, name) == ("sharded", "jetkeep-backup") else 1
        cluster.wait(f"pods of {job}", partial(_has_pods, cluster, job, wanted))
    if overlay.name == "agent":
        cluster.wait("the agent's pod", lambda: cluster.pods("jetkeep", "app.kubernetes.io/component=agent"))
    cluster.kubectl("delete", "--wait=false", "-n", "jetkeep", "jobs", "--all")
    cluster.kubectl("delete", "--wait=false", "-n", "jetkeep", "cronjobs,deployments", "--all")


@pytest.mark.parametrize("values", [None, *VALUES], ids=lambda one: one.stem if one else "default")
def test_the_server_takes_the_chart_without_a_warning(cluster: Cluster, values: Path | None) -> None:
    words = ["--values", str(values)] if values else []
    text = helmed(
        "template",
        "jetkeep",
        str(CHART),
        "--namespace=jetkeep",
        *words,
        "--set=podMonitor.enabled=false,prometheusRule.enabled=false",
    ).stdout
    cluster.kubectl("apply", "--dry-run=server", "--warnings-as-errors", "-f", "-", stdin=text)


def test_what_the_server_refuses_is_refused(cluster: Cluster) -> None:
    text = text_of(OVERLAYS[0])
    for wrong in (
        text.replace("Etc/UTC", "Mars/Olympus"),
        text.replace("restartPolicy: Never", "restartPolicy: Sometimes"),
        text.replace("concurrencyPolicy: Forbid", "concurrencyPolicy: Never"),
        text.replace("0 2 * * *", "0 25 * * *"),
    ):
        assert wrong != text
        told = cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=wrong, check=False)
        assert told.returncode != 0
