"""Velero as it is released, built from its Go modules; and the schemas of its objects.

python -m tests.kube.velero            # build what `make e2e-velero` needs, once: 5 minutes
python -m tests.kube.velero schemas    # derive tests/kube/velero_schemas.json from the module's CRDs
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

VELERO = "v1.18.3"
PLUGIN = "v1.14.3"
IMAGE = f"docker.io/velero/velero:{VELERO}"
PLUGIN_IMAGE = f"docker.io/velero/velero-plugin-for-aws:{PLUGIN}"
SCHEMAS = Path(__file__).with_name("velero_schemas.json")
_MODULE = "github.com/vmware-tanzu/velero"
_PLUGIN = "velero-plugin-for-aws"
_PROGRAMS = (
    "velero/cmd/velero",
    "velero/cmd/velero-restore-helper",
    f"{_PLUGIN}/{_PLUGIN}",
    f"{_PLUGIN}/hack/cp-plugin",
)
#: Velero replaces kopia by its fork, which a module that requires it has to say again. Of cli-runtime 0.33.12, which its
#: go.mod names, not every module proxy has the bytes: the next patch release does as well.
_GO_MOD = f"""module velero-for-tests

go 1.26.0

require (
	{_MODULE} {VELERO}
	github.com/vmware-tanzu/velero-plugin-for-aws {PLUGIN}
	k8s.io/cli-runtime v0.33.13
)

replace github.com/kopia/kopia => github.com/project-velero/kopia v0.0.0-20251230033609-d946b1e75197
"""
_KINDS = {
    "schedules": "Schedule",
    "backupstoragelocations": "BackupStorageLocation",
    "backups": "Backup",
    "restores": "Restore",
}


class Programs(NamedTuple):
    """Static binaries."""

    velero: Path
    restore_helper: Path
    plugin: Path
    cp_plugin: Path


def cache() -> Path:
    """Where built programs are kept from one run to the next."""
    return Path(os.environ.get("JETKEEP_KUBE_CACHE") or Path(__file__).parents[2] / ".kube")


def programs(*, build: bool = True) -> Programs | None:
    """Velero's programs, built where they are not there yet; None when they are not and must not be built.

    Raises:
        subprocess.CalledProcessError: Go could not build them.
    """
    folder = cache() / f"velero-{VELERO}-{PLUGIN}"
    found = Programs(*(folder / one.rpartition("/")[2] for one in _PROGRAMS))
    if all(one.is_file() for one in found):
        return found
    if not build:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "go.mod").write_text(_GO_MOD)
    flags = f"-s -w -X {_MODULE}/pkg/buildinfo.Version={VELERO}"
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}
    for one, target in zip(_PROGRAMS, found, strict=True):
        command = ["nice", "go", "build", "-ldflags", flags, "-o", f"{target}.new", f"github.com/vmware-tanzu/{one}"]
        subprocess.run(command, cwd=folder, env=environment, check=True)
        Path(f"{target}.new").replace(target)
    return found


def image(into: Path, name: str, files: Mapping[str, Path], entrypoint: Sequence[str]) -> Path:
    """An image of static programs and nothing else, as an archive that `ctr images import` takes."""
    layer = into / f"{hashlib.sha256(name.encode()).hexdigest()[:12]}.layer.tar"
    with tarfile.open(layer, "w") as tar:
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)
        for target, source in files.items():
            entry = tar.gettarinfo(source, target.lstrip("/"))
            entry.mode, entry.uid, entry.gid = 0o755, 0, 0
            with source.open("rb") as program:
                tar.addfile(entry, program)
    with layer.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint), "Env": ["PATH=/:/bin:/plugins", "HOME=/tmp"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    archive = into / f"{layer.name.partition('.')[0]}.tar"
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        for at, value in (("manifest.json", manifest), ("config.json", config)):
            raw = json.dumps(value).encode()
            entry = tarfile.TarInfo(at)
            entry.size = len(raw)
            tar.addfile(entry, io.BytesIO(raw))
        tar.add(layer, "layer.tar")
    layer.unlink()
    return archive


def images(into: Path) -> list[Path]:
    """Velero's image and its plugin's, as archives.

    Raises:
        subprocess.CalledProcessError: Go could not build them.
    """
    built = programs()
    assert built is not None
    return [
        image(into, IMAGE, {"/velero": built.velero, "/velero-restore-helper": built.restore_helper}, ["/velero"]),
        image(
            into,
            PLUGIN_IMAGE,
            {f"/plugins/{_PLUGIN}": built.plugin, "/bin/cp-plugin": built.cp_plugin},
            ["cp-plugin", f"/plugins/{_PLUGIN}", f"/target/{_PLUGIN}"],
        ),
    ]


def module() -> Path:
    """The module's files, its CRDs among them."""
    command = ["go", "mod", "download", "-json", f"{_MODULE}@{VELERO}"]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    return Path(json.loads(told.stdout)["Dir"])


def crds() -> list[Path]:
    """The files with Velero's own kinds."""
    return sorted((module() / "config" / "crd").glob("*/bases/*.yaml"))


def derive_schemas() -> dict[str, Any]:
    """JSON schemas of the kinds that people write: what the API server would refuse, and every key that it would drop."""
    found: dict[str, Any] = {}
    for path in crds():
        definition = yaml.safe_load(path.read_text())
        kind = definition["spec"]["names"]["kind"]
        if kind in _KINDS.values():
            version = definition["spec"]["versions"][0]
            schema = _strict(version["schema"]["openAPIV3Schema"])
            schema["properties"].pop("status", None)
            schema["properties"]["metadata"] = {"type": "object"}
            schema["properties"]["apiVersion"] = {"const": f"velero.io/{version['name']}"}
            found[kind] = schema
    return {"source": f"config/crd of {_MODULE} {VELERO}, without words and status; unknown keys refused", **found}


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {
        key: schema[key] for key in ("type", "enum", "required", "minItems", "pattern") if key in schema
    }
    if "properties" in schema:
        kept["properties"] = {key: _strict(one) for key, one in schema["properties"].items()}
        kept["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = _strict(schema["additionalProperties"])
    if "items" in schema:
        kept["items"] = _strict(schema["items"])
    if schema.get("nullable"):
        kept["type"] = [kept["type"], "null"]
    if schema.get("x-kubernetes-int-or-string"):
        kept["type"] = ["integer", "string"]
    return kept


if __name__ == "__main__":
    if sys.argv[1:] == ["schemas"]:
        SCHEMAS.write_text(json.dumps(derive_schemas(), separators=(",", ":"), sort_keys=True) + "\n")
    else:
        sys.stdout.write("\n".join(str(one) for one in programs() or ()) + "\n")
