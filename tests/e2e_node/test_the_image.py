"""The image as `make image` left it: looked at file by file, and built once more."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.kube import image

pytestmark = pytest.mark.e2e_node

OWN = "opt/jetkeep/"


class Archive(NamedTuple):
    """An unpacked OCI archive: its configuration, and the files of its last layer."""

    config: dict[str, Any]
    layer: Path

    def files(self) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        """Each entry with its first bytes."""
        with tarfile.open(self.layer) as tar:
            for entry in tar:
                content = tar.extractfile(entry) if entry.isfile() else None
                yield entry, content.read(64) if content else b""

    def text(self, name: str) -> str:
        """One file."""
        with tarfile.open(self.layer) as tar:
            content = tar.extractfile(name)
            assert content
            return content.read().decode()


def beside(end: str) -> Path:
    return image.ROOT / "dist" / f"jetkeep-{image.VERSION}{end}"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    if not beside(".oci.tar").exists():
        pytest.skip("there is no image yet: make image")
    folder = tmp_path_factory.mktemp("archive")
    with tarfile.open(beside(".oci.tar")) as tar:
        tar.extractall(folder, filter="data")

    def blob(digest: str) -> Path:
        return folder / "blobs" / digest.replace(":", "/")

    (first,) = json.loads((folder / "index.json").read_text())["manifests"]
    manifest = json.loads(blob(first["digest"]).read_text())
    config = json.loads(blob(manifest["config"]["digest"]).read_text())
    return Archive(config, blob(manifest["layers"][-1]["digest"]))


def test_it_runs_as_nobody_and_says_what_it_is(archive: Archive) -> None:
    config = archive.config["config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["/opt/jetkeep/bin/jetkeep"]
    assert config["Labels"]["org.opencontainers.image.version"] == image.VERSION


def test_its_files_are_all_in_one_place_readable_by_all_and_writable_by_nobody_else(archive: Archive) -> None:
    for entry, _ in archive.files():
        assert entry.name.startswith(OWN) or f"{entry.name}/" in (OWN, "opt/"), entry.name
        assert (entry.uid, entry.gid) == (0, 0)
        if not entry.issym():
            assert entry.mode & 0o7022 == 0, f"{entry.name}: {entry.mode:o}"
            assert entry.mode & 0o044 == 0o044, f"{entry.name}: {entry.mode:o}"


def test_it_brings_no_shell_script_no_installer_and_compiled_kernels(archive: Archive) -> None:
    names = {entry.name for entry, start in archive.files() if not start.startswith((b"#!/bin/sh", b"#!/bin/bash"))}
    assert len(names) == sum(1 for _ in archive.files())
    assert not {name for name in names if "site-packages/pip/" in name or "site-packages/setuptools/" in name}
    kernels = {
        name.rpartition("/")[2].partition(".")[0] for name in names if "codecs/kernels" in name and ".so" in name
    }
    assert kernels == {"_blocks", "_kernels", "_xxh3"}


def test_every_module_has_bytecode_that_no_clock_makes_stale(archive: Archive) -> None:
    # The second word of the header: 0 would be bound to the source's time, 1 to its hash, unchecked, 3 checked.
    flags = {entry.name: start[4] for entry, start in archive.files() if entry.name.endswith(".pyc")}
    assert {flag for name, flag in flags.items() if f"/bytecode/{OWN}" in name} == {1}
    assert {flag for name, flag in flags.items() if f"/bytecode/{OWN}" not in name} == {3}
    modules = {entry.name for entry, _ in archive.files() if "/site-packages/jetkeep/" in entry.name}
    assert len([name for name in modules if name.endswith(".py")]) == len(
        [name for name in modules if name.endswith(".pyc")]
    )


def test_its_account_names_every_package_and_lies_beside_it_too(archive: Archive) -> None:
    inside = archive.text(OWN + "share/sbom.cdx.json")
    assert inside == beside(".sbom.cdx.json").read_text()
    account = json.loads(inside)
    named = {one["name"] for one in account["components"]} | {account["metadata"]["component"]["name"]}
    installed = {
        entry.name.rpartition("/")[2].partition("-")[0].replace("_", "-").lower()
        for entry, _ in archive.files()
        if entry.name.endswith(".dist-info")
    }
    assert named - installed == {"nats-server", "python"}
    assert installed <= named


def test_another_build_has_the_same_digest(tmp_path: Path, archive: Archive) -> None:
    if why := image.missing():
        pytest.skip(why)
    again = image.build(tmp_path, fresh=True)
    assert again.digest == beside(".digest").read_text().strip()
