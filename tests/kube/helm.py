"""Helm, built from its Go module (one to two minutes, once)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.kube.image import cache

VERSION = "v3.22.0"
PACKAGE = "helm.sh/helm/v3"


def helm(*, build: bool = True) -> Path | None:
    """The binary on PATH or in the cache, else built; None when it is not there and must not be built.

    Raises:
        subprocess.CalledProcessError: Go could not build it.
    """
    folder = cache() / f"helm-{VERSION}"
    program = folder / "helm"
    found = shutil.which("helm")
    if found or program.is_file() or not build:
        return Path(found) if found else program if program.is_file() else None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "go.mod").write_text("module helm-for-tests\n\ngo 1.26\n")
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false"}
    subprocess.run(["go", "get", f"{PACKAGE}/cmd/helm@{VERSION}"], cwd=folder, env=environment, check=True)
    # By default it believes that it speaks to Kubernetes 1.20.
    known = f"{PACKAGE}/pkg/chartutil.k8sVersion"
    flags = f"-s -w -X {known}Major=1 -X {known}Minor=37 -X {PACKAGE}/internal/version.version={VERSION}"
    command = ["nice", "go", "build", "-ldflags", flags, "-o", "helm.new", f"{PACKAGE}/cmd/helm"]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    (folder / "helm.new").replace(program)
    return program


if __name__ == "__main__":
    sys.stdout.write(f"{helm()}\n")
