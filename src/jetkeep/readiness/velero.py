"""Whether Velero stores what jetkeep's volumes hold: its own word, Completed, does not say so (jetkeep.kube.velero)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from jetkeep.errors import ClusterError
from jetkeep.kube.cluster import Cluster
from jetkeep.kube.velero import EXCLUDE, PodView, covers, pod_view, skips, stores_nothing
from jetkeep.readiness.findings import Level, Readiness

_NAME = "velero"
_HINT = "let a pod keep it mounted and tell Velero (deploy/velero), or exclude its data: docs/how-to/velero.md"
_DONE = ("Completed", "PartiallyFailed")
_CLAIM = "velero.io/pvc-name"


class _Seen(NamedTuple):
    """What the cluster showed."""

    schedules: list[dict[str, Any]]
    claims: dict[str, dict[str, str]]
    pods: list[PodView]
    backups: list[dict[str, Any]] | None


def probe_velero(cluster: Cluster, readiness: Readiness, *, asked: bool) -> None:
    """Probe each claim that a jetkeep workload mounts, for each Velero schedule that covers its namespace.

    `asked`: by name, so what cannot be seen is unknown; else this runs in some pod, which need not see anything.
    """
    try:
        seen = _look(cluster)
    except ClusterError as error:
        level = Level.UNKNOWN if asked else Level.OK
        readiness.add(_NAME, level, f"not looked at: {error.what} [{error.code}]", error.hint)
        return
    if seen is None:
        unseen = ", ".join(cluster.unseen)
        level = Level.UNKNOWN if asked else Level.OK
        hint = "`jetkeep check --velero` with a kubeconfig that may list them; jetkeep's own pods need no such right"
        readiness.add(_NAME, level, f"not looked at: this user may not list {unseen}", hint)
        return
    if not seen.schedules:
        readiness.add(_NAME, Level.OK, f"no schedule of Velero covers namespace {cluster.namespace}")
        return
    if not seen.claims:
        readiness.add(_NAME, Level.OK, f"no pod of jetkeep in namespace {cluster.namespace} mounts a claim")
    for schedule in seen.schedules:
        for claim in sorted(seen.claims):
            _judge(cluster, readiness, seen, schedule, claim)
    if cluster.unseen:
        readiness.add(_NAME, Level.OK, f"not seen, so not judged: {', '.join(sorted(set(cluster.unseen)))}")


def _look(cluster: Cluster) -> _Seen | None:
    """None: what it takes to judge cannot be seen."""
    schedules = cluster.objects("velero.io/v1", "schedules", namespace="")
    if schedules is None:
        return None if cluster.unseen else _Seen([], {}, [], None)
    mine = [one for one in schedules if covers(_template(one), cluster.namespace) and not one["spec"].get("paused")]
    pods, claims, made = (
        cluster.objects(group, kind)
        for group, kind in (("v1", "pods"), ("v1", "persistentvolumeclaims"), ("batch/v1", "cronjobs"))
    )
    if pods is None or claims is None or made is None:
        return None
    views = [_pod(one) for one in pods]
    ours = [pod_view("", one, there=False) for one in pods if _is_ours(one)]
    for one in made:
        template = one["spec"]["jobTemplate"]["spec"]["template"]
        view = pod_view(f"CronJob {one['metadata']['name']}", template, there=False)
        views.append(view)
        if _is_ours(template) or _is_ours(one):
            ours.append(view)
    mounted = {claim for one in ours for claim in one.volumes.values()}
    labels = {one["metadata"]["name"]: one["metadata"].get("labels") or {} for one in claims}
    backups = cluster.objects("velero.io/v1", "backups", namespace="") if mine else []
    return _Seen(mine, {name: labels[name] for name in mounted if name in labels}, views, backups)


def _pod(pod: dict[str, Any]) -> PodView:
    running = (pod.get("status") or {}).get("phase") == "Running"
    return pod_view(f"pod {pod['metadata']['name']}", pod, there=running)


def _is_ours(one: dict[str, Any]) -> bool:
    labels = (one.get("metadata") or {}).get("labels") or {}
    containers = (one.get("spec") or {}).get("containers") or []
    return labels.get("app.kubernetes.io/name") == "jetkeep" or any(
        "jetkeep" in str(each.get("image")) for each in containers
    )


def _template(schedule: dict[str, Any]) -> dict[str, Any]:
    return schedule["spec"].get("template") or {}


def _judge(cluster: Cluster, readiness: Readiness, seen: _Seen, schedule: dict[str, Any], claim: str) -> None:
    name = f"{_NAME} schedule {schedule['metadata']['name']}"
    spec = _template(schedule)
    labels = seen.claims[claim]
    policies = list(_policies(cluster, schedule))
    if labels.get(EXCLUDE) == "true" or any(skips(one, labels) for one in policies):
        readiness.add(name, Level.OK, f"leaves out what claim {claim} holds, as it was told to")
        return
    newest = _newest(seen, schedule)
    # The newest backup has what the server's own settings added to the spec.
    why = stores_nothing({**(newest or {}).get("spec", {}), **spec}, claim, labels, seen.pods, policies)
    if why:
        readiness.add(name, Level.CRITICAL, f"stores nothing of claim {claim} and says Completed: {why}", _HINT)
    elif newest is not None and (lacks := _lacks(cluster, newest, claim)):
        readiness.add(
            name,
            Level.CRITICAL,
            f"its newest backup {lacks} claim {claim}, and says {newest['status']['phase']}",
            _HINT,
        )
    else:
        stored = f"; backup {newest['metadata']['name']} has it" if newest else "; there is no backup yet"
        readiness.add(name, Level.OK, f"claim {claim} is stored{stored}")


def _policies(cluster: Cluster, schedule: dict[str, Any]) -> Iterator[str]:
    wanted = (_template(schedule).get("resourcePolicy") or {}).get("name")
    if wanted:
        for one in cluster.objects("v1", "configmaps", namespace=schedule["metadata"]["namespace"]) or []:
            if one["metadata"]["name"] == wanted:
                yield from (one.get("data") or {}).values()


def _newest(seen: _Seen, schedule: dict[str, Any]) -> dict[str, Any] | None:
    made = [
        one
        for one in seen.backups or []
        if (one["metadata"].get("labels") or {}).get("velero.io/schedule-name") == schedule["metadata"]["name"]
        and (one.get("status") or {}).get("phase") in _DONE
    ]
    return max(made, key=lambda one: str(one["metadata"]["creationTimestamp"]), default=None)


def _lacks(cluster: Cluster, backup: dict[str, Any], claim: str) -> str:
    """How a backup that is done has nothing of a claim; empty when it has it, or that cannot be seen."""
    status = backup["status"]
    if status.get("volumeSnapshotsCompleted") or status.get("csiVolumeSnapshotsCompleted"):
        return ""
    selector = f"velero.io/backup-name={backup['metadata']['name']}"
    stored = cluster.objects(
        "velero.io/v1", "podvolumebackups", namespace=backup["metadata"]["namespace"], selector=selector
    )
    if stored is None:
        return ""
    of_claim = [
        one
        for one in stored
        if (one["metadata"].get("annotations") or {}).get(_CLAIM) == claim
        and one["spec"]["pod"].get("namespace") == cluster.namespace
    ]
    if any((one.get("status") or {}).get("phase") == "Completed" for one in of_claim):
        return ""
    return f"{backup['metadata']['name']} " + ("could not store" if of_claim else "holds nothing of")
