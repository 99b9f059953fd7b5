"""One cluster for all tests, with Velero in it as its own installer leaves it; only by `make e2e-velero`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jetkeep.sandbox.binaries import find_binary
from tests.e2e_velero import installation
from tests.kube import image, private, velero
from tests.kube.local_path import provisioner
from tests.kube.node import ADDRESS, Cluster
from tests.object_stores.seaweed import Seaweed
from tests.versions import NEWEST

_NATS = "localhost/nats:1"
_OWN = image.ROOT / "dist" / f"jetkeep-{image.VERSION}.oci.tar"


@dataclass
class Place:
    """The cluster and what is in it.

    Attributes:
        nats: URL, for pods and for the test.
        disks: the node's folders that are the volumes, in no order.
    """

    cluster: Cluster
    nats: str
    seaweed: Seaweed
    disks: list[Path]

    def velero(self, *words: str, check: bool = True) -> str:
        """What Velero's own command says."""
        built = velero.programs(build=False)
        assert built is not None
        command = [str(built.velero), *words, f"--kubeconfig={self.cluster.kubeconfig}", "--namespace=velero"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def jetkeep(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What an administrator runs beside the cluster."""
        command = [sys.executable, "-m", "jetkeep", *words]
        environment = {"KUBECONFIG": str(self.cluster.kubeconfig), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    def saved(self, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Take a Velero backup by our schedule; its status, and what it holds of volumes."""
        self.velero("backup", "create", name, "--from-schedule", "jetkeep", "--wait")
        status: dict[str, Any] = self.cluster.get("backups.velero.io", "velero", name)["status"]
        held = self.cluster.get("podvolumebackups", "velero", "", f"--selector=velero.io/backup-name={name}")
        return status, held["items"]


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    """A node, NATS, S3, Velero."""
    if not private.inside():
        pytest.skip("only inside `python -m tests.kube.private`: make e2e-velero")
    if velero.programs(build=False) is None:
        pytest.skip("Velero is not built: python -m tests.kube.velero")
    volumes, kube = provisioner(build=False), _kube()
    if volumes is None or kube is None or not _OWN.is_file():
        pytest.skip("not built: Kubernetes, the provisioner of volumes, or the image; make e2e-velero builds them")
    # A short name: sockets have paths of at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="velero-") as name, Cluster(Path(name, "c"), kube, volumes) as cluster:
        root = cluster.folder / "node-1" / "kubelet"
        root.mkdir(parents=True)
        # Velero's node agent looks at pods' volumes through the host's mounts, as they come and go.
        subprocess.run(["mount", "--bind", root, root], check=True)
        subprocess.run(["mount", "--make-rshared", root], check=True)
        cluster.start_node("node-1")
        with Seaweed(address=ADDRESS) as seaweed:
            yield _fill(cluster, Path(name), root, seaweed)


def _kube() -> Path | None:
    """The binary that is every Kubernetes program by its name, wherever in the cache it was built."""
    places = [*velero.cache().glob("kube"), *velero.cache().glob("*/kube")]
    return next((one for one in places if one.is_file()), None)


def _fill(cluster: Cluster, folder: Path, root: Path, seaweed: Seaweed) -> Place:
    archives = folder / "images"
    archives.mkdir()
    server = find_binary(NEWEST)
    assert server is not None
    nats = velero.image(archives, _NATS, {"/nats-server": server}, ["/nats-server"])
    cluster.load(image.pause(), _OWN, nats, *velero.images(archives))
    disks = [folder / "disks" / name for name in ("a", "b")]
    for disk in disks:
        disk.mkdir(parents=True)
    cluster.apply(installation.volumes(cluster.node, disks))
    cluster.apply(installation.nats_server(_NATS))

    def address() -> str:
        status = cluster.get("pod", "storage", "nats").get("status", {})
        return str(status.get("podIP", "")) if status.get("phase") == "Running" else ""

    place = Place(cluster, f"nats://{cluster.wait('NATS server', address)}:4222", seaweed, disks)
    seaweed.create_bucket("velero")
    _install(place, folder, root)
    return place


def _install(place: Place, folder: Path, root: Path) -> None:
    """As its documentation says, on a machine with two processors."""
    secret = folder / "cloud"
    access, key = place.seaweed.keys()
    secret.write_text(f"[default]\naws_access_key_id={access}\naws_secret_access_key={key}\n")
    place.velero(
        "install", "--provider=aws", f"--plugins={velero.PLUGIN_IMAGE}", f"--image={velero.IMAGE}", "--bucket=velero",
        f"--secret-file={secret}", "--use-node-agent", "--use-volume-snapshots=false", f"--kubelet-root-dir={root}",
        "--velero-pod-cpu-request=10m", f"--backup-location-config=region=us-east-1,s3ForcePathStyle=true,s3Url={place.seaweed.endpoint}",
    )  # fmt: skip
    for one in ("deployment/velero", "daemonset/node-agent"):
        place.cluster.kubectl("rollout", "status", one, "--namespace=velero", "--timeout=60s")
    overlay = installation.for_velero(folder / "schedule", "schedule", place.seaweed.endpoint)
    place.cluster.apply(rendered(place.cluster, overlay))
    wait_for_location(place.cluster)


def wait_for_location(cluster: Cluster) -> None:
    """Until Velero has reached our bucket."""

    def available() -> bool:
        location = cluster.get("backupstoragelocations.velero.io", "velero", "jetkeep")
        return bool(location.get("status", {}).get("phase") == "Available")

    cluster.wait("backup storage location", available)


def rendered(cluster: Cluster, folder: Path) -> str:
    """What `kubectl apply -k` would apply."""
    options: Sequence[str] = ("--load-restrictor", "LoadRestrictionsNone")
    return str(cluster.kubectl("kustomize", *options, str(folder)).stdout)
