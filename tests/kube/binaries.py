"""Kubernetes itself, built from its Go module: every program of it by its name (a first build takes some 10 minutes)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.kube.image import cache

VERSION = "v1.37.2"
#: What Kubernetes takes from its own tree has this version elsewhere.
STAGED = "v0.37.2"

_MAIN = """package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	var command *cobra.Command
	switch filepath.Base(os.Args[0]) {
	case "kube-apiserver":
		command = apiserver.NewAPIServerCommand()
	case "kube-controller-manager":
		command = controllers.NewControllerManagerCommand()
	case "kube-proxy":
		command = proxy.NewProxyCommand()
	case "kube-scheduler":
		command = scheduler.NewSchedulerCommand()
	case "kubelet":
		command = kubelet.NewKubeletCommand(context.Background())
	default:
		println("no program of Kubernetes:", os.Args[0])
		os.Exit(2)
	}
	os.Exit(cli.Run(command))
}
"""


def kubernetes(*, build: bool = True) -> Path | None:
    """The binary, built where it is not there yet; None when it is not and must not be built.

    Raises:
        subprocess.CalledProcessError: Go could not build it.
    """
    folder = cache() / f"kube-{VERSION}"
    program = folder / "kube"
    if program.is_file() or not build:
        return program if program.is_file() else None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.go").write_text(_MAIN)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false"}

    def go(*words: str) -> str:
        done = subprocess.run(["nice", "go", *words], cwd=folder, env=environment, check=True, stdout=subprocess.PIPE)
        return done.stdout.decode()

    (folder / "go.mod").write_text("module kube-for-tests\n\ngo 1.26\n")
    module = Path(go("mod", "download", "-json", f"k8s.io/kubernetes@{VERSION}").split('"GoMod": "')[1].split('"')[0])
    staged = sorted(set(re.findall(r"^\s*(k8s\.io/[a-z-]+) => \./staging", module.read_text(), re.MULTILINE)))
    with (folder / "go.mod").open("a") as settings:
        settings.write(f"\nrequire k8s.io/kubernetes {VERSION}\n\n")
        settings.writelines(f"replace {one} => {one} {STAGED}\n" for one in staged)
    go("mod", "tidy")
    flags = f"-s -w -X k8s.io/component-base/version.gitVersion={VERSION}"
    go("build", "-ldflags", flags, "-o", "kube.new", ".")
    (folder / "kube.new").replace(program)
    return program


if __name__ == "__main__":
    sys.stdout.write(f"{kubernetes()}\n")
