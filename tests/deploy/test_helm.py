"""The chart: by default what the overlay `local` is, with values what the book says, and wrong values are refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from jetkeep.agent import schedules_of
from jetkeep.config.file import ConfigFile, parse_config
from tests.deploy.overlays import DEPLOY, OVERLAYS, objects_of, pods_of
from tests.deploy.test_kustomize import SCHEMAS
from tests.docs.test_kubernetes_pages import parses
from tests.kube.helm import helm

CHART = DEPLOY / "helm" / "jetkeep"
VALUES = sorted((CHART / "ci").glob("*.yaml"))


def helmed(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    program = helm(build=False)
    if program is None:
        pytest.skip("helm is not there: python -m tests.kube.helm builds it")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


def rendered(*words: str) -> list[dict[str, Any]]:
    text = helmed("template", "jetkeep", str(CHART), "--namespace", "jetkeep", *words).stdout
    return [one for one in yaml.safe_load_all(text) if one]


def config_of(objects: list[dict[str, Any]]) -> ConfigFile:
    (found,) = (one for one in objects if one["kind"] == "ConfigMap" and one["metadata"]["name"] == "jetkeep-config")
    return parse_config(found["data"]["jetkeep.toml"], "jetkeep.toml")


def plain(one: dict[str, Any]) -> Any:
    """An object without what helm and kustomize each add for themselves."""

    def without(value: Any) -> Any:
        if isinstance(value, list):
            return [without(each) for each in value]
        if isinstance(value, dict):
            own = {"labels", "annotations", "namespace", "imagePullPolicy"}
            return {key: without(each) for key, each in value.items() if key not in own and each != {}}
        return value

    return without(one)


def test_by_default_it_is_the_overlay_local_with_the_exporter() -> None:
    (local,) = (one for one in OVERLAYS if one.name == "local")

    def named(objects: list[dict[str, Any]]) -> dict[str, Any]:
        found = {f"{one['kind']}/{one['metadata']['name']}": plain(one) for one in objects}
        config = found.pop("ConfigMap/jetkeep-config")["data"]["jetkeep.toml"]
        return {**found, "configuration": parse_config(config, "x")}

    ours, theirs = named(rendered()), named(objects_of(local))
    assert set(ours) - set(theirs) == {"Deployment/jetkeep-exporter", "Pod/jetkeep-check"}
    assert set(theirs) - set(ours) == {"Namespace/jetkeep"}  # helm has --create-namespace
    for name in set(ours) & set(theirs):
        assert ours[name] == theirs[name], name


@pytest.mark.parametrize("values", [None, *VALUES], ids=lambda one: one.stem if one else "default")
def test_what_it_renders_is_valid_and_jetkeep_takes_it(values: Path | None) -> None:
    objects = rendered(*(["--values", str(values)] if values else []))
    schedules_of(config_of(objects).schedules)
    for one in objects:
        schema = SCHEMAS["kinds"].get(f"{one['apiVersion']} {one['kind']}")
        if schema:
            jsonschema.validate(one, {"$ref": schema, "definitions": SCHEMAS["definitions"]})
        for pod in [one] if one["kind"] == "Pod" else pods_of(one):
            (container,) = pod["spec"]["containers"]
            words = [word.replace("$(JOB_NAME)", "x") for word in container["args"]]
            parses(words)
            assert pod["spec"]["automountServiceAccountToken"] is False
            assert container["securityContext"]["readOnlyRootFilesystem"]
            names = {volume["name"] for volume in pod["spec"]["volumes"]}
            assert {mount["name"] for mount in container["volumeMounts"]} == names


def test_the_nats_charts_own_contexts_are_enough() -> None:
    objects = rendered("--values", str(CHART / "ci" / "s3-and-box-contexts.yaml"))
    (secret,) = (one for one in objects if one["kind"] == "Secret")
    assert list(secret["stringData"]) == ["NATS_URL"]
    (job,) = (one for one in objects if one["metadata"]["name"] == "jetkeep-backup")
    container = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    environment = {one["name"]: one.get("value") for one in container["env"]}
    assert environment["NATS_CONTEXT"] == "default"
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert mounts["contexts"] == f"{environment['XDG_CONFIG_HOME']}/nats/context"
    assert mounts["contents"] == "/etc/nats-contents"
    assert list(config_of(objects).repositories) == ["local", "offsite"]


def test_the_agent_takes_the_schedules_and_values_are_laid_over() -> None:
    objects = rendered("--values", str(CHART / "ci" / "agent.yaml"))
    config = config_of(objects)
    assert set(config.schedules) == {"backup", "drill", "expire", "verify"}
    assert config.schedules["backup"].arguments == ["--all-sources"]
    assert set(config.sources) == {"shop", "office"}
    assert all(one["spec"]["suspend"] for one in objects if one["kind"] == "CronJob")
    (agent,) = (one for one in objects if one["kind"] == "Deployment")
    assert agent["spec"]["template"]["spec"]["nodeSelector"] == {"disk": "large"}
    assert not [one for one in objects if one["kind"] == "Secret"]
    assert "jetkeep-extra" in {one["metadata"]["name"] for one in objects}


def test_patches_are_json_patches(tmp_path: Path) -> None:
    pod = "/spec/jobTemplate/spec/template"
    operations: list[dict[str, Any]] = [
        {"op": "replace", "path": "/spec/schedule", "value": "0 3 * * *"},
        {"op": "add", "path": f"{pod}/metadata/labels/a~1b", "value": "c~d"},
        {"op": "add", "path": f"{pod}/spec/containers/0/args/-", "value": "--quiet"},
        {"op": "add", "path": f"{pod}/spec/containers/0/env/0", "value": {"name": "FIRST", "value": "1"}},
        {"op": "replace", "path": f"{pod}/spec/containers/0/image", "value": "mine:1"},
        {"op": "remove", "path": f"{pod}/spec/volumes/2/emptyDir"},
        {"op": "add", "path": f"{pod}/spec/volumes/2/emptyDir", "value": {"sizeLimit": "1Gi"}},
        {"op": "remove", "path": "/spec/startingDeadlineSeconds"},
    ]
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"cronJob": {"patch": operations}}))
    before, after = rendered(), rendered("--values", str(values))

    def job(objects: list[dict[str, Any]]) -> dict[str, Any]:
        (found,) = (one for one in objects if one["metadata"]["name"] == "jetkeep-verify")
        return found

    expected = job(before)
    spec = expected["spec"]
    spec["schedule"] = "0 3 * * *"
    del spec["startingDeadlineSeconds"]
    template = spec["jobTemplate"]["spec"]["template"]
    template["metadata"]["labels"]["a/b"] = "c~d"
    (container,) = template["spec"]["containers"]
    container["args"].append("--quiet")
    container["env"].insert(0, {"name": "FIRST", "value": "1"})
    container["image"] = "mine:1"
    template["spec"]["volumes"][2]["emptyDir"] = {"sizeLimit": "1Gi"}
    assert job(after) == expected
    for path in ("/spec/nothing/at", "/spec/jobTemplate/spec/template/spec/containers/7/args", "/spec/schedule/x"):
        values.write_text(yaml.safe_dump({"cronJob": {"patch": [{"op": "replace", "path": path, "value": 1}]}}))
        done = helmed("template", "jetkeep", str(CHART), "--values", str(values), check=False)
        assert f"there is nothing at {path}" in done.stderr


def test_the_chart_brings_the_alerts_as_they_are() -> None:
    assert (CHART / "files" / "rules.yaml").read_text() == (DEPLOY / "monitoring" / "rules.yaml").read_text()
    objects = rendered("--values", str(CHART / "ci" / "s3-and-box-contexts.yaml"))
    (rule,) = (one for one in objects if one["kind"] == "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((DEPLOY / "monitoring" / "rules.yaml").read_text())


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--set", "persistance.size=9Gi"), "persistance"),
        (("--set", "persistence.size=large"), "persistence/size"),
        (("--set", "schedules.backup.cron=daily"), "cron"),
        (("--set", "image.tag=latest"), "image/tag"),
        (("--set", "nats.url=nats://me:secret@nats:4222"), "nats/url"),
        (("--set", "repositories.local=null", "--set", "repositories.x.keep.daily=1"), "url"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(words: tuple[str, ...], what: str) -> None:
    done = helmed("template", "jetkeep", str(CHART), *words, check=False)
    assert done.returncode != 0
    assert what.replace("/", ".") in done.stderr.replace("/", ".")


def test_helm_has_nothing_to_complain_of_and_the_schema_is_one() -> None:
    assert "0 chart(s) failed" in helmed("lint", str(CHART)).stdout
    jsonschema.Draft7Validator.check_schema(json.loads((CHART / "values.schema.json").read_text()))
