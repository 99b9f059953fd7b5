"""The chart on a real node: one command installs it and waits for it, `helm test` finds all in order, a Job backs up."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.deploy.test_helm import CHART
from tests.e2e_node.site import NAMESPACE, Site
from tests.kube.helm import helm

pytestmark = pytest.mark.e2e_node


def test_one_command_installs_it_although_the_volume_waits_for_its_first_use(site: Site) -> None:
    program = helm(build=False)
    if program is None:
        pytest.skip("helm is not there: python -m tests.kube.helm builds it")

    def helmed(*words: str) -> str:
        done = subprocess.run(
            [program, *words, f"--namespace={NAMESPACE}"],
            env={**os.environ, "KUBECONFIG": str(site.cluster.kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    site.start_node("helm")
    site.start_nats()
    site.fill()
    values = ["--set=credentials.values=null", "--set=image.pullPolicy=Never"]
    told = helmed("install", "jetkeep", str(CHART), "--create-namespace", "--wait", "--timeout=90s", *values)
    assert "kubectl -n jetkeep create job now-1" in told
    claim = site.cluster.get("persistentvolumeclaim", NAMESPACE, "jetkeep-backups")
    assert claim["status"]["phase"] == "Bound"
    assert "Succeeded" in helmed("test", "jetkeep", "--timeout=60s")
    ended = site.run("jetkeep-backup", "first")
    assert ended.well, ended.said
    helmed("uninstall", "jetkeep")
    kept = site.cluster.get("persistentvolumeclaim", NAMESPACE, "jetkeep-backups")
    assert kept["status"]["phase"] == "Bound"
