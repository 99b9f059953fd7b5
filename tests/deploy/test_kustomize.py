"""Every overlay: valid for Kubernetes, strict, and its commands and configuration are ones that jetkeep takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from jetkeep.agent import schedules_of
from jetkeep.config.file import parse_config
from jetkeep.retention import Policy
from tests.deploy.overlays import OVERLAYS, objects_of, pods_of
from tests.docs.test_kubernetes_pages import parses

SCHEMAS = json.loads((Path(__file__).parents[1] / "kube" / "schemas.json").read_text())

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda one: one.name)


def named(overlay: Path, kind: str, name: str) -> dict[str, Any]:
    (found,) = (one for one in objects_of(overlay) if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def test_the_overlays_are_those_that_the_book_names() -> None:
    assert {one.name for one in OVERLAYS} == {"local", "s3", "gcs", "azure", "agent", "sharded"}


@every_overlay
def test_every_object_is_one_by_the_schemas_of_a_real_api_server(overlay: Path) -> None:
    for one in objects_of(overlay):
        schema = SCHEMAS["kinds"][f"{one['apiVersion']} {one['kind']}"]
        jsonschema.validate(one, {"$ref": schema, "definitions": SCHEMAS["definitions"]})


def test_the_schemas_find_what_is_no_field() -> None:
    job = named(OVERLAYS[0], "CronJob", "jetkeep-backup")
    job["spec"]["concurencyPolicy"] = "Forbid"
    with pytest.raises(jsonschema.ValidationError, match="concurencyPolicy"):
        jsonschema.validate(job, {"$ref": SCHEMAS["kinds"]["batch/v1 CronJob"], "definitions": SCHEMAS["definitions"]})


@every_overlay
def test_jetkeep_takes_the_configuration_and_every_command_line(overlay: Path) -> None:
    config = parse_config(named(overlay, "ConfigMap", "jetkeep-config")["data"]["jetkeep.toml"], "jetkeep.toml")
    schedules_of(config.schedules)
    assert all(one.keep for one in config.repositories.values())
    assert all(one.encrypt_to for name, one in config.repositories.items() if name != "local")
    assert Policy(last=1)
    seen = set()
    for one in objects_of(overlay):
        for pod in pods_of(one):
            (container,) = pod["spec"]["containers"]
            words = [re.sub(r"\$\(\w+\)", "x", word) for word in container["args"]]
            parses(words)
            seen.add(words[0])
    assert {"backup", "restore", "verify", "drill", "expire"} <= seen


@every_overlay
def test_every_pod_is_restricted_bounded_and_has_no_token(overlay: Path) -> None:
    for one in objects_of(overlay):
        for pod in pods_of(one):
            spec, (container,) = pod["spec"], pod["spec"]["containers"]
            assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == "jetkeep"  # or no NetworkPolicy selects it
            assert spec["automountServiceAccountToken"] is False
            assert spec["securityContext"]["runAsNonRoot"]
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert container["image"] == "jetkeep:0.1.0"
            assert spec["priorityClassName"] == "jetkeep"
    (namespace,) = (one for one in objects_of(overlay) if one["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert not [one for one in objects_of(overlay) if "Role" in one["kind"]]


@every_overlay
def test_everything_is_in_one_namespace(overlay: Path) -> None:
    of_the_cluster = {"Namespace", "PriorityClass"}
    found = {one["metadata"].get("namespace") for one in objects_of(overlay) if one["kind"] not in of_the_cluster}
    assert found == {"jetkeep"}


@every_overlay
def test_cron_jobs_do_not_overlap_end_and_are_forgotten(overlay: Path) -> None:
    jobs = {one["metadata"]["name"]: one["spec"] for one in objects_of(overlay) if one["kind"] == "CronJob"}
    for spec in jobs.values():
        assert (spec["timeZone"], spec["concurrencyPolicy"]) == ("Etc/UTC", "Forbid")
        assert spec["startingDeadlineSeconds"]
        assert spec["successfulJobsHistoryLimit"]
        assert spec["failedJobsHistoryLimit"]
        job = spec["jobTemplate"]["spec"]
        assert job["activeDeadlineSeconds"]
        assert job["ttlSecondsAfterFinished"]
        assert job["backoffLimit"] < 10
    assert jobs["jetkeep-backup"]["schedule"] == "0 2 * * *"
    waiting = {name for name, spec in jobs.items() if spec["suspend"]}
    assert waiting == (set(jobs) if overlay.name == "agent" else {"jetkeep-backup-now", "jetkeep-restore"})


@every_overlay
def test_secrets_are_placeholders(overlay: Path) -> None:
    secret = named(overlay, "Secret", "jetkeep-credentials")["stringData"]
    assert {value for key, value in secret.items() if key != "NATS_URL"} == {"REPLACE_ME"}


def test_clouds_know_the_pods_without_a_key() -> None:
    annotations = {
        one.name: named(one, "ServiceAccount", "jetkeep")["metadata"].get("annotations", {}) for one in OVERLAYS
    }
    assert "eks.amazonaws.com/role-arn" in annotations["s3"]
    assert "iam.gke.io/gcp-service-account" in annotations["gcs"]
    assert "azure.workload.identity/client-id" in annotations["azure"]
    assert annotations["local"] == {}


def test_a_sharded_run_is_one_set() -> None:
    (overlay,) = (one for one in OVERLAYS if one.name == "sharded")
    job = named(overlay, "CronJob", "jetkeep-backup")["spec"]["jobTemplate"]["spec"]
    args = job["template"]["spec"]["containers"][0]["args"]
    assert (job["completionMode"], job["completions"]) == ("Indexed", int(args[args.index("--shards") + 1]))
