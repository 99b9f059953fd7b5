"""What Velero will really store of a claim: its file-system backup stores nothing that no running pod mounts.

And says Completed all the same. A CronJob's volume is mounted for a few seconds a day, so beside one the trap is the
normal case (docs/how-to/velero.md). Pure: specs, pods and claims come in as plain objects, from files or a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import yaml

OPT_IN = "backup.velero.io/backup-volumes"
OPT_OUT = "backup.velero.io/backup-volumes-excludes"
EXCLUDE = "velero.io/exclude-from-backup"
_CLAIM_KINDS = {"*", "persistentvolumeclaims", "persistentvolumeclaim", "pvc", "pods", "pod", "po"}


class PodView(NamedTuple):
    """A pod, or what makes pods. `there`: it is running (in a cluster), or meant to be all the time (in a file)."""

    title: str
    there: bool
    annotations: Mapping[str, str]
    volumes: Mapping[str, str]

    def opts_in(self, volume: str, *, by_default: bool) -> bool:
        """Whether Velero is told to copy this volume's files."""
        if volume in _names(self.annotations.get(OPT_OUT, "")):
            return False
        return by_default or volume in _names(self.annotations.get(OPT_IN, ""))


def pod_view(title: str, template: Mapping[str, Any], *, there: bool) -> PodView:
    """Of a pod, or of a template of pods."""
    spec = template.get("spec") or {}
    volumes = {
        str(one.get("name")): str(one["persistentVolumeClaim"].get("claimName"))
        for one in spec.get("volumes") or []
        if isinstance(one, dict) and isinstance(one.get("persistentVolumeClaim"), dict)
    }
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    return PodView(title, there, {str(key): str(value) for key, value in annotations.items()}, volumes)


def _names(text: str) -> set[str]:
    return {one.strip() for one in text.split(",") if one.strip()}


def covers(spec: Mapping[str, Any], namespace: str) -> bool:
    """Whether a Backup of this spec takes the namespace's pods and claims."""
    included = spec.get("includedNamespaces") or ["*"]
    if not any(fnmatchcase(namespace, str(one)) for one in included):
        return False
    if any(fnmatchcase(namespace, str(one)) for one in spec.get("excludedNamespaces") or []):
        return False
    for key in ("includedResources", "includedNamespaceScopedResources"):
        if (only := spec.get(key)) and not _kinds(only) & _CLAIM_KINDS:
            return False
    return not any(
        _kinds(spec.get(key)) & _CLAIM_KINDS for key in ("excludedResources", "excludedNamespaceScopedResources")
    )


def _kinds(names: Iterable[Any] | None) -> set[str]:
    return {str(one).partition(".")[0].lower() for one in names or []}


def skips(policy: str, labels: Mapping[str, str]) -> bool:
    """Whether a resource policy (the text in its ConfigMap) has Velero skip the data of a claim with these labels."""
    try:
        found = yaml.safe_load(policy)
    except yaml.YAMLError:
        return False
    policies = found.get("volumePolicies") if isinstance(found, dict) else None
    for one in policies if isinstance(policies, list) else []:
        conditions = one.get("conditions") or {} if isinstance(one, dict) else {}
        wanted = conditions.get("pvcLabels")
        matches = isinstance(wanted, dict) and all(labels.get(key) == value for key, value in wanted.items())
        # Further conditions may keep it from matching: only labels alone say it for certain.
        if matches and set(conditions) == {"pvcLabels"}:
            return bool((one.get("action") or {}).get("type") == "skip")
    return False


def stores_nothing(
    spec: Mapping[str, Any],
    claim: str,
    labels: Mapping[str, str],
    pods: Sequence[PodView],
    policies: Iterable[str] = (),
) -> str:
    """Why a Backup of this spec, which covers the namespace, stores nothing of a claim; empty when it does, or need not.

    Snapshots of volumes do not depend on pods: a spec that asks for them is believed.
    """
    if labels.get(EXCLUDE) == "true" or any(skips(one, labels) for one in policies):
        return ""
    if spec.get("snapshotMoveData") is True or spec.get("snapshotVolumes") is True:
        return ""
    by_default = spec.get("defaultVolumesToFsBackup") is True
    mounting = [(pod, volume) for pod in pods for volume, name in pod.volumes.items() if name == claim]
    told = [(pod, volume) for pod, volume in mounting if pod.opts_in(volume, by_default=by_default)]
    if any(pod.there for pod, _ in told):
        return ""
    if told:
        names = ", ".join(sorted({pod.title for pod, _ in told}))
        return f"it is mounted only while {names} runs"
    if spec.get("snapshotVolumes") is False:
        there = [pod.title for pod, _ in mounting if pod.there]
        return f"{there[0]} mounts it, and has no annotation {OPT_IN}" if there else "no pod mounts it"
    return "no pod mounts it" if by_default and not mounting else ""
