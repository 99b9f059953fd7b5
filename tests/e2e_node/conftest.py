"""A cluster for each module; `make e2e-node` prepares what it needs and keeps it apart from the machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e_node.site import Site
from tests.kube import image, private
from tests.kube.binaries import kubernetes
from tests.kube.local_path import provisioner
from tests.kube.node import ADDRESS, Cluster
from tests.object_stores.seaweed import Seaweed

TOOLS = ("etcd", "containerd", "runc", "ctr", "ip", "iptables", "openssl")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    if not private.inside():
        pytest.skip("make e2e-node runs this in namespaces of its own")
    absent = [tool for tool in TOOLS if not shutil.which(tool)]
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}")
    kube, volumes = kubernetes(build=False), provisioner(build=False)
    archive = image.ROOT / "dist" / f"jetkeep-{image.VERSION}.oci.tar"
    if not kube or not volumes or not archive.exists():
        pytest.skip("not built: Kubernetes, the provisioner of volumes, or the image; make e2e-node builds them")
    with (
        tempfile.TemporaryDirectory(prefix="jetkeep-node-") as folder,
        Cluster(Path(folder), kube, volumes) as cluster,
        Seaweed(address=ADDRESS) as seaweed,
    ):
        seaweed.create_bucket("tests")
        yield Site(cluster, seaweed, (image.pause(), archive))
