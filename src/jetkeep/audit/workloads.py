"""Rules about pods: the `restricted` profile, resources, deadlines, images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jetkeep.audit.document import Node
from jetkeep.audit.findings import Finding, Place
from jetkeep.audit.rules import RULES
from jetkeep.audit.workload import Workload

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
}  # fmt: skip


def pods(workloads: Iterable[Workload]) -> Iterator[Finding]:
    """Everything about the pods of these workloads."""
    for one in workloads:
        yield from _pod(one)
        for container in one.containers:
            yield from _container(one, container)
        yield from _job(one)


def _pod(one: Workload) -> Iterator[Finding]:
    spec = one.spec
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name).value is True:
            yield _finding(one, "JK016", spec.get(name), f"{name} is true")
    for volume in spec.get("volumes").all:
        for kind, node in volume.items.items():
            if kind != "name" and kind not in _VOLUMES:
                yield _finding(one, "JK016", node, f"a volume of type {kind}")
    for sysctl in spec.get("securityContext", "sysctls").all:
        if sysctl.get("name").text not in _SYSCTLS:
            yield _finding(one, "JK016", sysctl, "a sysctl that is not safe")


def _container(one: Workload, container: Node) -> Iterator[Finding]:
    name = container.get("name").text
    wrong = _restricted(one.spec.get("securityContext"), container)
    if wrong:
        yield _finding(one, "JK016", container, f"container {name}: {'; '.join(wrong)}")
    if container.get("securityContext", "readOnlyRootFilesystem").value is not True:
        yield _finding(one, "JK017", container, f"container {name}: readOnlyRootFilesystem is not true")
    resources = container.get("resources")
    absent = [
        ".".join(path) for path in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")) if not resources.get(*path)
    ]  # fmt: skip
    # A limit is the request where none is stated.
    absent = [path for path in absent if not (path.startswith("requests") and resources.get("limits", path[9:]))]
    if absent:
        yield _finding(one, "JK018", resources or container, f"container {name}: no {', '.join(absent)}")
    image = container.get("image")
    tag = image.text.rpartition("/")[2].partition("@")[0].partition(":")[2]
    if image.text and "@sha256:" not in image.text and tag in ("", "latest"):
        yield _finding(one, "JK021", image, f"container {name}: the image has {'the tag latest' if tag else 'no tag'}")


def _restricted(pod: Node, container: Node) -> list[str]:
    """What of a container's security context the profile refuses."""
    own = container.get("securityContext")
    wrong = []
    if own.get("privileged").value is True:
        wrong.append("privileged is true")
    if own.get("allowPrivilegeEscalation").value is not False:
        wrong.append("allowPrivilegeEscalation is not false")
    if "ALL" not in own.get("capabilities", "drop").texts:
        wrong.append("capabilities do not drop ALL")
    if added := set(own.get("capabilities", "add").texts) - {"NET_BIND_SERVICE"}:
        wrong.append(f"capabilities add {', '.join(sorted(added))}")
    if _effective(pod, own, "runAsNonRoot").value is not True:
        wrong.append("runAsNonRoot is not true")
    if _effective(pod, own, "runAsUser").value == 0:
        wrong.append("runAsUser is 0")
    if _effective(pod, own, "seccompProfile").get("type").text not in ("RuntimeDefault", "Localhost"):
        wrong.append("seccompProfile is not RuntimeDefault")
    if own.get("procMount") and own.get("procMount").text != "Default":
        wrong.append("procMount is not Default")
    if any(one.get("hostPort").value for one in container.get("ports").all):
        wrong.append("hostPort is set")
    return wrong


def _effective(pod: Node, own: Node, key: str) -> Node:
    """The container's setting, else the pod's."""
    here = own.get(key)
    return here if here.value is not None else pod.get(key)


def _job(one: Workload) -> Iterator[Finding]:
    if one.document.kind not in ("CronJob", "Job"):
        return
    spec = one.document.node.get("spec")
    missing = []
    if not (one.job.get("activeDeadlineSeconds") or one.spec.get("activeDeadlineSeconds")):
        missing.append("activeDeadlineSeconds")
    if one.document.kind == "CronJob" and one.runs and not spec.get("startingDeadlineSeconds"):
        missing.append("startingDeadlineSeconds")
    if missing:
        yield _finding(one, "JK019", spec, f"no {' and no '.join(missing)}")
    policy = spec.get("concurrencyPolicy")
    if one.document.kind == "CronJob" and policy.text != "Forbid":
        yield _finding(one, "JK020", policy or spec, f"concurrencyPolicy is {policy.text or 'Allow, the default'}")


def _finding(one: Workload, rule: str, node: Node, what: str) -> Finding:
    place = Place(one.document.file, node.line or one.document.node.line, one.document.title)
    return Finding(RULES[rule], place, what, RULES[rule].severity)
