"""A real Kubernetes with one node: API server, scheduler, controllers, kubelet, containerd, CNI bridge, kube-proxy, volumes.

    with Cluster(folder) as cluster:
        cluster.start_node()
        cluster.load(archive)
        cluster.apply(manifests)
        job = cluster.wait_for_job("jetkeep", "jetkeep-backup-now")

Only inside `python -m tests.kube.private`: nothing of it is bound to the machine, and nothing of it outlives that command.
Every wait is bounded and tells, when it ends in vain, what the cluster says of itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.kube import dns, private

#: Of the node, on a bridge of its own; pods reach what listens here, such as a test's S3 server.
ADDRESS = "192.168.77.2"
_PODS = "10.77.0.0/16"
_SERVICES = "10.96.0.0/16"
_TOKEN = "all-may"
_API = "https://127.0.0.1:6443"
_SOCKET = "/run/containerd/containerd.sock"
PAUSE = "localhost/pause:1"
PROVISIONER = "rancher.io/local-path"
READY_SECONDS = 90.0
_STORAGE_CLASS = f"""
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: local-path
  annotations: {{storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: {PROVISIONER}
volumeBindingMode: WaitForFirstConsumer
reclaimPolicy: Delete
---
apiVersion: v1
kind: Namespace
metadata: {{name: local-path-storage}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: local-path-provisioner-service-account, namespace: local-path-storage}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: local-path-config, namespace: local-path-storage}}
data:
  setup: |
    mkdir -m 0777 -p "$VOL_DIR"
  teardown: |
    rm -rf "$VOL_DIR"
"""
_HELPER_POD = f"""
apiVersion: v1
kind: Pod
metadata: {{name: helper-pod}}
spec:
  containers:
  - {{name: helper-pod, image: "{PAUSE}", imagePullPolicy: Never}}
"""


class Cluster:
    """The control plane, and its node once `start_node` was called. All of it is killed at the end of the block.

    Args:
        folder: for everything it writes; logs are in `logs`.
        kube: the binary that is every Kubernetes program by its name.
        provisioner: the local-path provisioner's binary.
    """

    def __init__(self, folder: Path, kube: Path, provisioner: Path) -> None:
        if not private.inside():
            raise RuntimeError("only inside `python -m tests.kube.private`")
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        self.node = ""
        self._programs = dict.fromkeys(
            ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"), kube
        )
        self._programs["local-path-provisioner"] = provisioner
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._dns: dns.Server | None = None

    def __enter__(self) -> Self:
        try:
            self._start_control_plane()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill everything."""
        self.kill_node()
        for name in list(self._running):
            self._kill(name)
        if self._dns:
            self._dns.close()

    # The control plane

    def _start_control_plane(self) -> None:
        for name in ("bin", "logs", "certificates", "cni"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for name, program in self._programs.items():
            with contextlib.suppress(FileExistsError):
                (self.folder / "bin" / name).symlink_to(program)
        _bridge()
        key, tokens = self.folder / "accounts.key", self.folder / "tokens.csv"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        tokens.write_text(f"{_TOKEN},admin,1,system:masters\n")
        self.kubeconfig.write_text(json.dumps(_kubeconfig()))
        certificates = self.folder / "certificates"
        self._start(
            "etcd", f"--data-dir={self.folder / 'etcd'}", "--listen-client-urls=http://127.0.0.1:2379", "--unsafe-no-fsync",
            "--advertise-client-urls=http://127.0.0.1:2379", "--listen-peer-urls=http://127.0.0.1:2380",
        )  # fmt: skip
        self._start(
            "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--secure-port=6443", f"--advertise-address={ADDRESS}",
            f"--cert-dir={certificates}", f"--service-cluster-ip-range={_SERVICES}", f"--token-auth-file={tokens}",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={key}", "--authorization-mode=Node,RBAC", "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
        )  # fmt: skip
        self.wait("the API server", self._ready)
        common = [f"--kubeconfig={self.kubeconfig}", "--leader-elect=false"]
        self._start(
            "kube-controller-manager", *common, f"--service-account-private-key-file={key}", "--node-monitor-period=1s",
            f"--root-ca-file={certificates / 'apiserver.crt'}", "--node-monitor-grace-period=10s",
        )  # fmt: skip
        self._start("kube-scheduler", *common)
        self._dns = dns.Server(ADDRESS, self._services)

    def _ready(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self._get("/readyz"))
        return False

    def _get(self, path: str) -> str:
        request = urllib.request.Request(_API + path, headers={"Authorization": f"Bearer {_TOKEN}"})
        with urllib.request.urlopen(request, timeout=5, context=dns.trusting()) as answer:
            return str(answer.read().decode())

    def _services(self) -> Mapping[str, Sequence[str]]:
        """Names within the cluster's domain, to addresses."""
        found = {}
        for one in json.loads(self._get("/api/v1/services"))["items"]:
            name, namespace = one["metadata"]["name"], one["metadata"]["namespace"]
            addresses = [one["spec"].get("clusterIP", "None")]
            if addresses == ["None"]:
                ends = json.loads(self._get(f"/api/v1/namespaces/{namespace}/endpoints/{name}")).get("subsets") or []
                addresses = [each["ip"] for some in ends for each in some.get("addresses", [])]
            found[f"{name}.{namespace}.svc"] = addresses
        return found

    # The node

    def start_node(self, name: str = "node-1") -> None:
        """Start it, with its disk as it was left, or an empty one; it is ready on return."""
        disk = self.folder / name
        (disk / "volumes").mkdir(parents=True, exist_ok=True)
        self.node = name
        self._write_node_settings(disk)
        self._start("containerd", f"--config={disk / 'containerd.toml'}")
        self.wait("containerd", lambda: not self._ctr("version", check=False).returncode)
        self._start(
            "kubelet", f"--config={disk / 'kubelet.json'}", f"--kubeconfig={self.kubeconfig}", f"--root-dir={disk / 'kubelet'}",
            f"--hostname-override={name}", f"--node-ip={ADDRESS}",
        )  # fmt: skip
        self._start(
            "kube-proxy", f"--kubeconfig={self.kubeconfig}", f"--cluster-cidr={_PODS}", f"--hostname-override={name}",
            "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
        )  # fmt: skip
        self._start(
            "local-path-provisioner", "start", f"--config={disk / 'local-path.json'}", f"--helper-image={PAUSE}",
            f"--helper-pod-file={disk / 'helper.yaml'}", f"--kubeconfig={self.kubeconfig}",
        )  # fmt: skip
        self.wait("the node", lambda: "True" in self._condition(name))

    def _write_node_settings(self, disk: Path) -> None:
        (disk / "containerd.toml").write_text(_containerd(disk, self.folder / "cni"))
        (disk / "kubelet.json").write_text(json.dumps(_kubelet(disk)))
        (disk / "helper.yaml").write_text(_HELPER_POD)
        (disk / "local-path.json").write_text(
            json.dumps(
                {"nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [str(disk / "volumes")]}]}
            )
        )
        network = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True,
                   "ipam": {"type": "host-local", "ranges": [[{"subnet": _PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}}  # fmt: skip
        (self.folder / "cni" / "10-bridge.conflist").write_text(
            json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [network]})
        )
        self.apply(_STORAGE_CLASS)

    def _condition(self, name: str) -> str:
        path = '{.status.conditions[?(@.type=="Ready")].status}'
        return self.kubectl("get", "node", name, "-o", f"jsonpath={path}", check=False).stdout

    def kill_node(self) -> None:
        """As a power cut: kubelet, containerd and every container at once, with no word to the API server; its disk stays."""
        for name in ("local-path-provisioner", "kube-proxy", "kubelet", "containerd"):
            self._kill(name)
        group = os.environ[private.GROUP]
        for _ in range(100):
            alive = [*private.members(group), *_pids("containerd-shim")]
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not alive:
                break
            time.sleep(0.05)
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            place = line.split()[1]
            if place.startswith(("/run/containerd", "/run/netns/", str(self.folder))):
                subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)
        # A machine that starts again has an empty /run, and no address is taken.
        for left in ("/run/containerd", "/run/netns", "/var/lib/cni/networks"):
            shutil.rmtree(left, ignore_errors=True)
        Path("/run/netns").mkdir(exist_ok=True)

    def destroy_node(self) -> None:
        """The node, its disk and every volume on it: gone for good, and forgotten by the cluster."""
        self.kill_node()
        shutil.rmtree(self.folder / self.node)
        self.kubectl("delete", "node", self.node, "--wait=false")
        self.node = ""

    def load(self, *archives: Path) -> None:
        """Give the node these images (OCI archives), under their names and as `docker.io/library/NAME` where they are local."""
        for archive in archives:
            self._ctr("images", "import", str(archive))
        for name in self._ctr("images", "ls", "-q").stdout.split():
            if name.startswith("localhost/"):
                self._ctr("images", "tag", "--force", name, name.replace("localhost/", "docker.io/library/", 1))

    def _ctr(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return _run(["ctr", f"--address={_SOCKET}", "--namespace=k8s.io", *arguments], check=check)

    # What tests ask

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """The command that a user types; bounded by its own 60 s."""
        program = Path(sys.executable).parent / "kubectl"
        return _run(
            [str(program), f"--kubeconfig={self.kubeconfig}", "--request-timeout=60s", *arguments], stdin, check
        )

    def apply(self, manifests: str) -> None:
        """Apply YAML as `kubectl apply -f -` does."""
        self.kubectl("apply", "-f", "-", stdin=manifests)

    def get(self, kind: str, namespace: str, name: str = "", *options: str) -> dict[str, Any]:
        """One object, or the list of them; {} when it is absent."""
        words = [kind, *([name] if name else []), f"--namespace={namespace}", *options]
        answer = self.kubectl("get", *words, "-o", "json", check=False)
        found: dict[str, Any] = json.loads(answer.stdout) if answer.stdout.strip() else {}
        return found

    def wait(self, what: str, until: Callable[[], Any], seconds: float = READY_SECONDS) -> Any:
        """What `until` says once it is true.

        Raises:
            TimeoutError: it was not in time; with the events, and the ends of the logs of what runs here.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if said := until():
                return said
            for name, process in self._running.items():
                if process.poll() is not None:
                    raise TimeoutError(f"{name} ended while waiting for {what}:\n{self._tail(name)}")
            time.sleep(0.1)
        raise TimeoutError(f"no {what} within {seconds:.0f} s\n{self._state()}")

    def wait_for_job(self, namespace: str, name: str, seconds: float = READY_SECONDS) -> dict[str, Any]:
        """The job once it has ended, well or not."""

        def ended() -> dict[str, Any]:
            job = self.get("job", namespace, name)
            met = {one["type"] for one in job.get("status", {}).get("conditions", []) if one["status"] == "True"}
            return job if met & {"Complete", "Failed"} else {}

        found: dict[str, Any] = self.wait(f"end of the job {name}", ended, seconds)
        return found

    def pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        """Pods by label, oldest first."""
        found = self.get("pods", namespace, "", f"--selector={selector}").get("items", [])
        return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def logs(self, namespace: str, name: str) -> str:
        """What `kubectl logs` says of `pod/NAME` or `job/NAME`."""
        return self.kubectl("logs", f"--namespace={namespace}", name, "--tail=-1", check=False).stdout

    def _state(self) -> str:
        events = self.kubectl("get", "events", "-A", "--sort-by=.lastTimestamp", check=False).stdout.splitlines()[-15:]
        pods = self.kubectl("get", "pods,jobs,pvc", "-A", "-o", "wide", check=False).stdout
        return "\n".join([pods, *events, *(self._tail(name, 3) for name in self._running)])

    def _tail(self, name: str, lines: int = 20) -> str:
        said = (self.folder / "logs" / f"{name}.log").read_text(errors="replace").splitlines()[-lines:]
        return "\n".join([f"-- {name}", *said])

    # Processes

    def _start(self, name: str, *arguments: str) -> None:
        program = self.folder / "bin" / name
        log = (self.folder / "logs" / f"{name}.log").open("ab")
        with log:
            self._running[name] = subprocess.Popen(
                [str(program) if program.is_symlink() else name, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _kill(self, name: str) -> None:
        if process := self._running.pop(name, None):
            process.kill()
            process.wait()


def _run(command: list[str], stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=300)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} …: {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def _bridge() -> None:
    if _run(["ip", "link", "show", "node0"], check=False).returncode:
        _run(["ip", "link", "add", "node0", "type", "bridge"])
        _run(["ip", "address", "add", f"{ADDRESS}/24", "dev", "node0"])
        _run(["ip", "link", "set", "node0", "up"])
        _run(["ip", "route", "add", "default", "dev", "node0"])


def _pids(program: str) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if program in (folder / "cmdline").read_text().partition("\0")[0]:
                yield int(folder.name)


def _kubeconfig() -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": _API, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "it", "user": {"token": _TOKEN}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    }  # fmt: skip


def _containerd(disk: Path, cni: Path) -> str:
    plugin = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "{disk / "containerd"}"
state = "/run/containerd"
[grpc]
address = "{_SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
path = "{disk / "opt"}"
[{plugin}]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
[{plugin}.cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cni}"
[{plugin}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""


def _kubelet(disk: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "failCgroupV1": False,
        "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{os.environ[private.GROUP]}", "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{_SOCKET}", "podLogsDir": str(disk / "pod-logs"), "resolvConf": "",
        "volumePluginDir": str(disk / "plugins"), "clusterDNS": [ADDRESS], "clusterDomain": "cluster.local",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"}, "imageGCHighThresholdPercent": 100, "nodeStatusUpdateFrequency": "2s",
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
    }  # fmt: skip
