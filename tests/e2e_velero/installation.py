"""A namespace as a user has it: a backup CronJob, its claim, deploy/velero; beside it a NATS server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SPACE = "jetkeep"
CLAIM = "jetkeep-backups"


def nats_server(image: str) -> str:
    """A NATS server of this image, in the namespace `storage`."""
    container = {
        "name": "nats",
        "image": image,
        "imagePullPolicy": "Never",
        "args": ["--jetstream", "--store_dir=/data"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    spec = {"containers": [container], "volumes": [{"name": "data", "emptyDir": {}}]}
    return yaml.safe_dump_all(
        [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "storage"}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "nats", "namespace": "storage"}, "spec": spec},
        ]
    )


def volumes(node: str, folders: list[Path]) -> str:
    """A storage class without a provisioner, and a volume at each of these folders of the node."""
    selector = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    affinity = {"required": {"nodeSelectorTerms": [{"matchExpressions": [selector]}]}}
    documents: list[dict[str, Any]] = [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "e2e-velero"},
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        }
    ]
    documents += [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"e2e-velero-{number}"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "e2e-velero",
                "persistentVolumeReclaimPolicy": "Delete",
                "local": {"path": str(folder)},
                "nodeAffinity": affinity,
            },
        }
        for number, folder in enumerate(folders)
    ]
    return yaml.safe_dump_all(documents)


def namespace(nats: str) -> str:
    """The namespace with a backup CronJob that is started by hand."""
    labels = {"app.kubernetes.io/name": "jetkeep"}

    def meta(name: str) -> dict[str, Any]:
        return {"name": name, "namespace": SPACE, "labels": labels}

    container = {
        "name": "jetkeep",
        "image": "jetkeep:0.1.0",
        "imagePullPolicy": "IfNotPresent",
        "args": ["backup", "--repo", "/backups"],
        "env": [{"name": "NATS_URL", "value": nats}],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "backups", "mountPath": "/backups"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    pod = {
        "restartPolicy": "Never",
        "serviceAccountName": "jetkeep",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "backups", "persistentVolumeClaim": {"claimName": CLAIM}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    job = {
        "activeDeadlineSeconds": 120,
        "backoffLimit": 0,
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    return yaml.safe_dump_all(
        [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE, "labels": restricted}},
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("jetkeep")},
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": meta(CLAIM),
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": "e2e-velero",
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            },
            {
                "apiVersion": "batch/v1",
                "kind": "CronJob",
                "metadata": meta("jetkeep-backup"),
                "spec": {
                    "schedule": "0 2 * * *",
                    "suspend": True,
                    "concurrencyPolicy": "Forbid",
                    "jobTemplate": {"spec": job},
                },
            },
        ]
    )


def with_component(folder: Path, component: str, installation: str) -> Path:
    """An overlay of the installation with one of deploy/velero's components; the folder that kustomize takes."""
    folder.mkdir()
    (folder / "installation.yaml").write_text(installation)
    kustomization = {"resources": ["installation.yaml"], "components": [_relative(folder, component)]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return folder


def for_velero(folder: Path, name: str, s3: str) -> Path:
    """deploy/velero/NAME with the bucket of this S3 server in it."""
    folder.mkdir()
    changes = [
        {"op": "replace", "path": "/spec/objectStorage/bucket", "value": "velero"},
        {"op": "remove", "path": "/spec/credential"},
        {
            "op": "replace",
            "path": "/spec/config",
            "value": {"region": "us-east-1", "s3ForcePathStyle": "true", "s3Url": s3},
        },
    ]
    kustomization = {
        "resources": [_relative(folder, name)],
        "patches": [{"target": {"kind": "BackupStorageLocation"}, "patch": yaml.safe_dump(changes)}],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return folder


def _relative(folder: Path, name: str) -> str:
    """kustomize takes no absolute paths."""
    return os.path.relpath(ROOT / "deploy" / "velero" / name, folder.resolve())
