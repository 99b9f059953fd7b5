"""The commands of the Kubernetes pages, typed in a real cluster: the tutorial from installing to a stream that is back."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_kubernetes_pages import ROOT, lines
from tests.e2e_node.site import NAMESPACE, Site
from tests.matrix.looking import Look
from tests.publisher import Publisher

pytestmark = pytest.mark.e2e_node

#: What stands in for what the reader has: helm and nats-box are not here, and nobody is at an editor.
_THEIRS = (
    "helm ",
    "kubectl -n nats ",
    "mkdir ",
    "cat ",
    "kubectl kustomize",
    "kubectl -n jetkeep edit",
    "kubectl config",
)
PAGES = (
    "tutorial/kubernetes",
    "how-to/back-up-now",
    "how-to/disaster-from-the-bucket",
    "how-to/upgrade",
    "how-to/change-retention",
)


@pytest.fixture(scope="module")
def was(site: Site) -> dict[str, Look]:
    """Streams on a server, and jetkeep installed; what the streams hold."""
    site.start_node("node-1")
    site.start_nats()
    site.fill()
    site.install()
    if not site.cluster.get("cronjob", NAMESPACE, "jetkeep-backup-now"):
        pytest.skip("what is installed here has no jobs to start by hand: the manifests are not in this checkout")
    return site.look()


def typed(site: Site, line: str) -> str:
    """What a shell says to a line of the page."""
    programs = Path(sys.executable).parent
    environment = {**os.environ, "KUBECONFIG": str(site.cluster.kubeconfig), "PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", line], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    jobs = site.cluster.kubectl("get", "jobs,pods", f"--namespace={NAMESPACE}", check=False).stdout
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}\n{jobs}"
    return done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_the_page_s_commands_do_what_it_says(page: str, site: Site, was: dict[str, Look]) -> None:
    site.cluster.kubectl("delete", "jobs", "--all", f"--namespace={NAMESPACE}")
    said = ""
    for line in lines(ROOT / "docs" / f"{page}.md"):
        if line.startswith("kubectl apply -k") or line.startswith(_THEIRS) or "jetkeep-agent" in line:
            continue
        if "--from=cronjob/jetkeep-restore" in line:
            for name in was:
                _lose(site, name)
            typed(site, line)
        else:
            said += typed(site, line)
    for name in site.cluster.get("jobs", NAMESPACE)["items"]:
        ended = site.ended(name["metadata"]["name"], 120)
        assert ended.well, ended.said
    if "restore" in said:
        assert "compared with what was captured" in said
    assert site.look() == was


def _lose(site: Site, name: str) -> None:
    async def work() -> None:
        async with Publisher(site.nats_url) as publisher:
            await publisher.ask(f"$JS.API.STREAM.DELETE.{name}")

    asyncio.run(work())
