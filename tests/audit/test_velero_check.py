"""`check` tells what Velero really stores: by what would happen, and by what its newest backup holds."""

from __future__ import annotations

from typing import Any

import pytest

from jetkeep.errors import ClusterError
from jetkeep.kube import Cluster
from jetkeep.readiness import Level, Readiness, probe_velero

LABELS = {"app.kubernetes.io/name": "jetkeep"}
VOLUMES = [{"name": "backups", "persistentVolumeClaim": {"claimName": "jetkeep-backups"}}]
CRONJOB = {
    "metadata": {"name": "jetkeep-backup", "namespace": "jetkeep", "labels": LABELS},
    "spec": {"jobTemplate": {"spec": {"template": {"metadata": {}, "spec": {"volumes": VOLUMES}}}}},
}
CLAIM = {"metadata": {"name": "jetkeep-backups", "namespace": "jetkeep", "labels": LABELS}}


def schedule(**template: Any) -> dict[str, Any]:
    return {"metadata": {"name": "daily", "namespace": "velero"}, "spec": {"schedule": "x", "template": template}}


def pod(phase: str = "Running", annotation: str = "backups") -> dict[str, Any]:
    metadata = {"name": "keeper", "labels": LABELS, "annotations": {"backup.velero.io/backup-volumes": annotation}}
    return {"metadata": metadata, "spec": {"volumes": VOLUMES, "containers": []}, "status": {"phase": phase}}


def made(phase: str = "Completed") -> dict[str, Any]:
    metadata = {"name": "daily-1", "namespace": "velero", "creationTimestamp": "2026-11-24T04:00:00Z"}
    return {
        "metadata": {**metadata, "labels": {"velero.io/schedule-name": "daily"}},
        "spec": {"defaultVolumesToFsBackup": False},
        "status": {"phase": phase},
    }


def stored(phase: str = "Completed", claim: str = "jetkeep-backups") -> dict[str, Any]:
    return {
        "metadata": {"name": "x", "annotations": {"velero.io/pvc-name": claim}},
        "spec": {"pod": {"namespace": "jetkeep"}},
        "status": {"phase": phase},
    }


class Shown(Cluster):
    """A cluster that shows these objects; a kind that is not among them it refuses."""

    def __init__(self, **kinds: list[dict[str, Any]] | None) -> None:
        super().__init__(None, "jetkeep")
        self._kinds = {"cronjobs": [CRONJOB], "persistentvolumeclaims": [CLAIM], "podvolumebackups": [], **kinds}

    def objects(
        self, group: str, kind: str, *, namespace: str | None = None, selector: str = ""
    ) -> list[dict[str, Any]] | None:
        found = self._kinds.get(kind, [])
        if found is None:
            self.unseen.append(kind)
        return found


def probe(cluster: Cluster, *, asked: bool = True) -> list[tuple[Level, str]]:
    readiness = Readiness()
    probe_velero(cluster, readiness, asked=asked)
    assert readiness.status == 0
    return [(one.level, one.what) for one in readiness.probes]


@pytest.mark.parametrize(
    ("pods", "template"),
    [
        pytest.param([], {"defaultVolumesToFsBackup": True}, id="only the CronJob mounts it"),
        pytest.param([pod("Succeeded")], {}, id="a pod that has ended"),
        pytest.param([pod(annotation="other")], {"snapshotVolumes": False}, id="a pod that tells of another volume"),
    ],
)
def test_the_trap_is_critical_before_velero_has_run(pods: list[dict[str, Any]], template: dict[str, Any]) -> None:
    [(level, what)] = probe(Shown(schedules=[schedule(**template)], pods=pods))
    assert level is Level.CRITICAL
    assert "stores nothing of claim jetkeep-backups" in what


@pytest.mark.parametrize(("held", "words"), [([], "holds nothing of"), ([stored("Failed")], "could not store")])
def test_a_backup_that_says_completed_without_the_claim_is_critical(held: list[dict[str, Any]], words: str) -> None:
    [(level, what)] = probe(Shown(schedules=[schedule()], pods=[pod()], backups=[made()], podvolumebackups=held))
    assert level is Level.CRITICAL
    assert words in what
    assert "Completed" in what


def test_a_claim_that_is_stored_is_well() -> None:
    cluster = Shown(schedules=[schedule()], pods=[pod()], backups=[made()], podvolumebackups=[stored()])
    [(level, what)] = probe(cluster)
    assert (level, "daily-1 has it" in what) == (Level.OK, True)


def test_a_claim_that_is_left_out_by_a_policy_is_well() -> None:
    text = "version: v1\nvolumePolicies:\n- conditions:\n    pvcLabels: {app.kubernetes.io/name: jetkeep}\n  action: {type: skip}\n"
    policy = {"metadata": {"name": "policy"}, "data": {"a": text}}
    template = {"resourcePolicy": {"kind": "configmap", "name": "policy"}, "snapshotVolumes": False}
    [(level, what)] = probe(Shown(schedules=[schedule(**template)], pods=[], configmaps=[policy]))
    assert (level, "as it was told" in what) == (Level.OK, True)


def test_other_namespaces_schedules_do_not_matter() -> None:
    [(level, what)] = probe(Shown(schedules=[schedule(includedNamespaces=["shop"])], pods=[]))
    assert (level, "no schedule of Velero covers" in what) == (Level.OK, True)


@pytest.mark.parametrize(("asked", "level"), [(True, Level.UNKNOWN), (False, Level.OK)])
def test_what_cannot_be_seen_is_said(asked: bool, level: Level) -> None:
    [(found, what)] = probe(Shown(schedules=None), asked=asked)
    assert found is level
    assert "may not list schedules" in what


def test_a_cluster_that_does_not_answer_is_unknown() -> None:
    class Silent(Shown):
        def objects(self, *_: Any, **__: Any) -> list[dict[str, Any]] | None:
            raise ClusterError("the cluster cannot be reached", code="cluster.unreachable")

    [(level, what)] = probe(Silent())
    assert (level, "[cluster.unreachable]" in what) == (Level.UNKNOWN, True)
