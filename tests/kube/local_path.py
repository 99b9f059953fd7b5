"""The local-path provisioner, built from its Go module: volumes that are folders of the node."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.kube.image import cache

MODULE = "github.com/rancher/local-path-provisioner"
VERSION = "v0.0.30"


def provisioner(*, build: bool = True) -> Path | None:
    """The binary, built where it is not there yet; None when it is not and must not be built.

    Raises:
        subprocess.CalledProcessError: Go could not build it.
    """
    folder = cache() / f"local-path-{VERSION}"
    program = folder / "local-path-provisioner"
    if program.is_file() or not build:
        return program if program.is_file() else None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "go.mod").write_text("module local-path-for-tests\n\ngo 1.26\n")
    environment = {**os.environ, "CGO_ENABLED": "0"}
    subprocess.run(["go", "get", f"{MODULE}@{VERSION}"], cwd=folder, env=environment, check=True)
    command = ["nice", "go", "build", "-ldflags", "-s -w", "-o", f"{program}.new", MODULE]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    Path(f"{program}.new").replace(program)
    return program


if __name__ == "__main__":
    sys.stdout.write(f"{provisioner()}\n")
