"""JSON schemas of the kinds that we use, from a real API server's OpenAPI document; a field that is none is refused.

`python -m tests.kube.private .venv/bin/python -m tests.kube.schemas` (after tests.kube.binaries and local_path) writes
schemas.json anew.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.kube.binaries import kubernetes
from tests.kube.local_path import provisioner
from tests.kube.node import Cluster

FILE = Path(__file__).parent / "schemas.json"
KINDS = (
    "v1 Namespace", "v1 ConfigMap", "v1 Secret", "v1 Service", "v1 ServiceAccount", "v1 PersistentVolumeClaim", "v1 Pod",
    "batch/v1 CronJob", "batch/v1 Job", "apps/v1 Deployment", "networking.k8s.io/v1 NetworkPolicy",
    "scheduling.k8s.io/v1 PriorityClass",
)  # fmt: skip


def derived(document: dict[str, Any]) -> dict[str, Any]:
    """What our kinds need of it, without its prose."""
    names = {
        "/".join(filter(None, (kind["group"], kind["version"]))) + f" {kind['kind']}": name
        for name, one in document["definitions"].items()
        for kind in one.get("x-kubernetes-group-version-kind", ())
    }
    needed, waiting = dict[str, Any](), [names[kind] for kind in KINDS]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed[name] = _strict(document["definitions"][name])
            waiting += re.findall(r'"#/definitions/([^"]+)"', json.dumps(needed[name]))
    kinds = {kind: f"#/definitions/{names[kind]}" for kind in KINDS}
    return {"kinds": kinds, "definitions": dict(sorted(needed.items()))}


def _strict(one: Any) -> Any:
    if isinstance(one, list):
        return [_strict(each) for each in one]
    if not isinstance(one, dict):
        return one
    kept = {
        key: {name: _strict(each) for name, each in value.items()} if key == "properties" else _strict(value)
        for key, value in one.items()
        if key == "properties" or not (key.startswith("x-") or key in ("description", "default", "format"))
    }
    if kept.get("properties") and "additionalProperties" not in kept:
        kept["additionalProperties"] = False
    if one.get("x-kubernetes-int-or-string") or one.get("format") == "int-or-string":
        return {"type": ["integer", "string"]}
    return kept


def main() -> None:
    """Write the file."""
    kube, volumes = kubernetes(build=False), provisioner(build=False)
    assert kube
    assert volumes
    with tempfile.TemporaryDirectory(prefix="jetkeep-api-") as folder, Cluster(Path(folder), kube, volumes) as cluster:
        document = json.loads(cluster.kubectl("get", "--raw", "/openapi/v2").stdout)
    FILE.write_text(json.dumps(derived(document), separators=(",", ":"), sort_keys=True) + "\n")
    sys.stdout.write(f"{FILE}: {FILE.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
