"""What the tests of a node share: a cluster with a NATS server to lose, an S3 server outside of it, jetkeep installed."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import random
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyrage

from jetkeep.config import ConnectionSettings
from jetkeep.jetstream import connect
from tests.kube import image
from tests.kube.node import Cluster
from tests.matrix.looking import Look, look
from tests.object_stores.seaweed import Seaweed
from tests.publisher import Publisher, header_block
from tests.restoring import HOUR, consumer, fetch

HERE = Path(__file__).parent
NAMESPACE = "jetkeep"
STREAMS = ("ORDERS", "WORK", "EMPTY", "BIG")
_CONFIGURATION = """
[repositories.local]
url = "/backups"
keep = {{ daily = 7, weekly = 4 }}

[repositories.offsite]
url = "s3://tests/shop"
endpoint = "{}"
path-style = true
allow-http = true
keep = {{ daily = 30, monthly = 12 }}
encrypt-to = ["{}"]
"""
Change = Callable[[dict[str, Any]], None]


class Ended(NamedTuple):
    """A job's end: whether well, the seconds from its creation to its completion, and what its pods said."""

    well: bool
    seconds: float
    said: str


class Site:
    """A cluster in use."""

    def __init__(self, cluster: Cluster, seaweed: Seaweed, images: tuple[Path, ...]) -> None:
        self.cluster = cluster
        self.seaweed = seaweed
        self.images = images
        #: Who reads what is off-site, and nobody at the node: in a safe until the day on which it is needed.
        self.identity = str(key := pyrage.x25519.Identity.generate())
        self.recipient = str(key.to_public())

    def start_node(self, name: str) -> None:
        """A node with the images, and a NATS server that answers."""
        self.cluster.start_node(name)
        self.cluster.load(*self.images)

    def start_nats(self) -> None:
        """A server; it answers on return."""
        self.cluster.apply((HERE / "nats.yaml").read_text())
        self.cluster.wait("NATS server", self._nats_answers)

    def _nats_answers(self) -> bool:
        if not self.cluster.get("statefulset", "nats", "nats").get("status", {}).get("readyReplicas"):
            return False
        host, _, port = self.nats_url.removeprefix("nats://").partition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=1) as line:
                return line.recv(4) == b"INFO"
        except OSError:
            return False

    @property
    def nats_url(self) -> str:
        """Of the service: what runs on the node reaches it as pods do."""
        return f"nats://{self.cluster.get('service', 'nats', 'nats')['spec']['clusterIP']}:4222"

    def lose_nats(self) -> None:
        """The server, its volume and everything on it; an empty one in its place."""
        self.cluster.kubectl(
            "delete", "--namespace=nats", "statefulset/nats", "persistentvolumeclaim/js-nats-0", "--timeout=60s"
        )
        self.start_nats()

    def install(self, overlay: str = "s3", **secrets: str) -> None:
        """What a user does: one command, on an overlay of their own.

        Args:
            overlay: of deploy/kustomize, on which the user's builds.
            secrets: more variables, such as the identity that opens what is sealed.
        """
        folder = self.cluster.folder / "site" / overlay
        folder.mkdir(parents=True, exist_ok=True)
        keys = self.seaweed.keys()
        values = {
            "AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            # The server asks for no name.
            "NATS_USER": None, "NATS_PASSWORD": None, **secrets,
        }  # fmt: skip
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "jetkeep-credentials"},
            "stringData": values,
        }
        settings: dict[str, Any] = {
            "namespace": NAMESPACE,
            "resources": [os.path.relpath(image.ROOT / "deploy" / "kustomize" / "overlays" / overlay, folder)],
            "patches": [{"patch": json.dumps(secret)}],
        }
        if overlay != "agent":
            (folder / "jetkeep.toml").write_text(_CONFIGURATION.format(self.seaweed.endpoint, self.recipient))
            own = {"name": "jetkeep-config", "behavior": "replace", "files": ["jetkeep.toml"]}
            settings["configMapGenerator"] = [{**own, "options": {"disableNameSuffixHash": True}}]
        (folder / "kustomization.yaml").write_text(json.dumps(settings))
        self.cluster.kubectl("apply", "-k", str(folder))

    def look(self) -> dict[str, Look]:
        """Every stream with its messages and consumers, as the API tells it."""

        async def every() -> dict[str, Look]:
            async with connect(ConnectionSettings(servers=(self.nats_url,))) as js:
                return {name: await look(js, name) for name in STREAMS}

        return asyncio.run(every())

    def fill(self) -> None:
        """Streams of several kinds, 24 MiB of them hard to compress; deletes, headers, a consumer half way."""
        asyncio.run(_fill(self.nats_url))

    # Jobs

    def run(self, template: str, name: str, change: Change | None = None, seconds: float = 90) -> Ended:
        """Start a job of a CronJob's template, as `kubectl create job --from` does, and wait for its end."""
        self.start(template, name, change)
        return self.ended(name, seconds)

    def start(self, template: str, name: str, change: Change | None = None) -> None:
        """Create the job; `change` gets its spec."""
        made = self.cluster.kubectl(
            "create",
            "job",
            name,
            f"--namespace={NAMESPACE}",
            f"--from=cronjob/{template}",
            "--dry-run=client",
            "-o",
            "json",
        )
        job = copy.deepcopy(json.loads(made.stdout))
        if change:
            change(job["spec"])
        self.cluster.apply(json.dumps(job))

    def ended(self, name: str, seconds: float = 90) -> Ended:
        """Wait for a job's end."""
        job = self.cluster.wait_for_job(NAMESPACE, name, seconds)
        ends = [
            one["lastTransitionTime"] for one in job["status"]["conditions"] if one["type"] in ("Complete", "Failed")
        ]
        well = any(one["type"] == "Complete" for one in job["status"]["conditions"])
        took = _instant(ends[-1]) - _instant(job["metadata"]["creationTimestamp"])
        pods = self.cluster.pods(NAMESPACE, f"batch.kubernetes.io/job-name={name}")
        said = [self.cluster.logs(NAMESPACE, f"pod/{pod['metadata']['name']}") for pod in pods]
        return Ended(well, took, "\n".join(said))

    def pods(self, job: str) -> list[str]:
        """Names of a job's pods, oldest first."""
        found = self.cluster.pods(NAMESPACE, f"batch.kubernetes.io/job-name={job}")
        return [str(pod["metadata"]["name"]) for pod in found]

    def ready_pod(self, selector: str) -> str:
        """The name of a pod that says it is ready, once there is one."""

        def told() -> str:
            for pod in self.cluster.pods(NAMESPACE, selector):
                met = [one for one in pod["status"].get("conditions", []) if one["type"] == "Ready"]
                if met and met[0]["status"] == "True":
                    return str(pod["metadata"]["name"])
            return ""

        return str(self.cluster.wait(f"ready pod of {selector}", told))

    def how_ended(self, pod: str) -> dict[str, Any]:
        """How a pod's container ended, once it has: exitCode, reason."""

        def told() -> dict[str, Any]:
            states = self.cluster.get("pod", NAMESPACE, pod).get("status", {}).get("containerStatuses", [])
            return next((one["state"]["terminated"] for one in states if "terminated" in one["state"]), {})

        found: dict[str, Any] = self.cluster.wait(f"end of {pod}", told)
        return found

    def patch_pod(self, pod: str, patch: dict[str, Any]) -> None:
        """Merge this into a pod."""
        self.cluster.kubectl(
            "patch", "pod", pod, f"--namespace={NAMESPACE}", "--type=merge", f"--patch={json.dumps(patch)}"
        )

    def small_volume(self, name: str, megabytes: int) -> Path:
        """A claim, bound to a volume that really is full at this size; where it is on the node."""
        folder = self.cluster.folder / name
        folder.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,uid=10001,gid=10001", "jetkeep", folder], check=True
        )
        size = {"storage": f"{megabytes}Mi"}
        modes = {"accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand"}
        volume = {"capacity": size, "hostPath": {"path": str(folder)}, **modes}
        claim = {"resources": {"requests": size}, "volumeName": name, **modes}
        for kind, spec, where in (
            ("PersistentVolume", volume, {}),
            ("PersistentVolumeClaim", claim, {"namespace": NAMESPACE}),
        ):
            self.cluster.apply(
                json.dumps({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, **where}, "spec": spec})
            )
        return folder

    def lose_the_node(self) -> None:
        """It, its disk, every volume; and what the cluster remembers of what ran there."""
        self.cluster.destroy_node()
        for namespace in (NAMESPACE, "nats", "local-path-storage"):
            self.cluster.kubectl("delete", "namespace", namespace, "--wait=false")
            self.cluster.kubectl("delete", "pods", "--all", f"--namespace={namespace}", "--force", "--grace-period=0")
        self.cluster.wait("end of namespaces", lambda: not self.cluster.get("namespace", "", NAMESPACE), 120)
        self.cluster.wait("end of namespaces", lambda: not self.cluster.get("namespace", "", "nats"), 120)

    def volume(self, claim: str = "jetkeep-backups", namespace: str = NAMESPACE) -> Path:
        """Where a claim's bytes are on the node."""
        name = self.cluster.get("pvc", namespace, claim)["spec"]["volumeName"]
        spec = self.cluster.get("pv", namespace, name)["spec"]
        return Path((spec.get("hostPath") or spec.get("local"))["path"])

    def start_slowly(self, name: str) -> str:
        """Start a backup that has too little CPU to be done soon, and wait until it is at it; its pod."""
        self.start("jetkeep-backup", name, _starve)
        selector = f"batch.kubernetes.io/job-name={name}"
        before = self.files()
        self.cluster.wait(f"something that {name} writes", lambda: self.files() - before)
        (pod,) = self.cluster.pods(NAMESPACE, selector)
        return str(pod["metadata"]["name"])

    def files(self) -> set[Path]:
        """What the repository in the volume consists of, finished or not."""
        return {one for one in self.volume().rglob("*") if one.is_file()}


def container(spec: dict[str, Any]) -> dict[str, Any]:
    """The only one of a job's spec."""
    (found,) = spec["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def _starve(spec: dict[str, Any]) -> None:
    container(spec)["resources"] = {"limits": {"cpu": "60m", "memory": "1Gi"}}
    # Everything anew: what an earlier backup has stored would not be written again.
    container(spec)["args"] = ["backup", "--repo", "local"]


def _instant(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


async def _fill(url: str) -> None:
    async with connect(ConnectionSettings(servers=(url,))) as js:
        await js.create_stream({"name": "ORDERS", "subjects": ["orders.>"], "storage": "file"})
        await js.create_stream({"name": "WORK", "subjects": ["work.>"], "retention": "workqueue"})
        await js.create_stream({"name": "EMPTY", "subjects": ["empty.>"]})
        await js.create_stream({"name": "BIG", "subjects": ["big.>"]})
        async with Publisher(url) as publisher:
            header = header_block(("Trace", "a"), ("Trace", "b"))
            await publisher.store_all((f"orders.{at % 7}", b"order %d" % at, header) for at in range(5000))
            await publisher.store_all((f"work.{at}", b"job %d" % at, b"") for at in range(50))
            noise = random_bytes()
            await publisher.store_all((f"big.{at % 3}", noise[at * 8192 : (at + 1) * 8192], b"") for at in range(3072))
        for seq in (3, 4, 4000):
            await js.request("STREAM.MSG.DELETE.ORDERS", {"seq": seq})
        await consumer(js, "WORK", "worker", ack_wait=HOUR)
        await fetch(js, "WORK", "worker", 10, acks=range(6))


def random_bytes() -> bytes:
    """24 MiB that no codec makes smaller, the same each time."""
    return random.Random(6).randbytes(24 << 20)
