"""The image, made here: on a Debian base of its own making, without a registry, a daemon, or a trace on this machine.

    python -m tests.kube.image            # make image: dist/jetkeep-VERSION.oci.tar and its account beside it
    python -m tests.kube.image --twice    # and once more from nothing: both must have the same digest

Only the two bases (debootstrap) and the wheelhouse (pip, by the hashes of uv.lock) need a network; both are kept in the
cache (JETKEEP_KUBE_CACHE, else .kube). The image itself is built in namespaces without one.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "deploy" / "image"
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
#: What the manifests name.
NAME = f"localhost/jetkeep:{VERSION}"
#: Debian's, whose Python is 3.11: the oldest that is supported. The official images' are the Dockerfile's default.
SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
RUNTIME = ("python3", "ca-certificates")
BUILDER = (*RUNTIME, "python3-pip", "python3-dev", "gcc", "libc6-dev")
TOOLS = ("buildah", "debootstrap", "unshare")
#: 1 January 2026: any moment does, if it is always the same.
EPOCH = 1767225600
BUILD_SECONDS = 900
_PRIVATE = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private")


class Built(NamedTuple):
    """An image on disk: its OCI archive, its account of what it holds, its manifest's digest."""

    archive: Path
    sbom: Path
    digest: str


def cache() -> Path:
    """Where what is slow to make is kept."""
    return Path(os.environ.get("JETKEEP_KUBE_CACHE") or ROOT / ".kube").absolute()


def missing() -> str:
    """Why no image can be built here, or nothing."""
    if os.geteuid():
        return "building the image needs root, for namespaces of its own"
    absent = [tool for tool in TOOLS if not shutil.which(tool)]
    return f"not installed: {', '.join(absent)} (apt-get install buildah debootstrap)" if absent else ""


def build(into: Path, *, fresh: bool = False) -> Built:
    """Build the image from this checkout; its files are in `into`, complete, on return.

    Args:
        into: a folder.
        fresh: use no layer of an earlier build.

    Raises:
        subprocess.CalledProcessError: a step failed; its output was shown.
    """
    _bases()
    wheels = _wheelhouse()
    into.mkdir(parents=True, exist_ok=True)
    archive, sbom, digest = (into / f"jetkeep-{VERSION}{end}" for end in (".oci.tar", ".sbom.cdx.json", ".digest"))
    common = [
        "--layers", f"--build-context=wheelhouse={wheels}", f"--build-arg=SOURCE_DATE_EPOCH={EPOCH}", f"--timestamp={EPOCH}",
    ]  # fmt: skip
    archive.unlink(missing_ok=True)
    _buildah(*_bud(*common, *(["--no-cache"] if fresh else []), f"--tag={NAME}"), online=False)
    _buildah("push", f"--digestfile={digest}", NAME, f"oci-archive:{archive}:{NAME}", online=False)
    with tempfile.TemporaryDirectory() as folder:
        _buildah(*_bud(*common, "--target=sbom", f"--output=type=local,dest={folder}"), online=False)
        shutil.copyfile(Path(folder, "sbom.cdx.json"), sbom)
    return Built(archive, sbom, digest.read_text().strip())


def pause() -> Path:
    """The image of what holds a pod's network, and makes its volumes: the runtime base, asleep."""
    _bases()
    archive = cache() / "images" / "pause.oci.tar"
    if not archive.exists():
        _buildah("from", "--name=pause-working-container", "localhost/runtime")
        _buildah("config", '--entrypoint=["/bin/sleep", "infinity"]', "pause-working-container")
        _buildah("commit", "--quiet", "--rm", "pause-working-container", "localhost/pause:1")
        _buildah("push", "localhost/pause:1", f"oci-archive:{archive}:localhost/pause:1")
    return archive


def _bud(*options: str) -> list[str]:
    return [
        "bud", "--quiet", "--isolation=chroot", "--build-arg=BUILDER=localhost/builder", "--build-arg=RUNTIME=localhost/runtime",
        f"--file={IMAGE / 'Dockerfile'}", *options, str(ROOT),
    ]  # fmt: skip


def _buildah(*arguments: str, online: bool = True) -> None:
    """Run it in namespaces of its own: its mounts end with it, and RUN lines that must need no network get none."""
    storage = cache() / "images"
    command = [
        *_PRIVATE, *([] if online else ["--net"]),
        "buildah", f"--root={storage / 'root'}", f"--runroot={storage / 'run'}", "--storage-driver=overlay", *arguments,
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=sys.stderr, timeout=BUILD_SECONDS)


def _bases() -> None:
    """Two Debian trees as images: what runs, and what has a compiler too."""
    done = cache() / "images" / "bases"
    wanted = f"{SUITE} {RUNTIME} {BUILDER}"
    if done.exists() and done.read_text() == wanted:
        return
    for name, packages in (("runtime", RUNTIME), ("builder", BUILDER)):
        with tempfile.TemporaryDirectory(prefix="jetkeep-base-") as folder:
            _bootstrap(Path(folder), packages)
            work = f"{name}-working-container"
            _buildah("from", f"--name={work}", "scratch")
            _buildah("add", "--quiet", work, folder, "/")
            _buildah("commit", "--quiet", "--rm", work, f"localhost/{name}")
    done.write_text(wanted)


def _bootstrap(folder: Path, packages: tuple[str, ...]) -> None:
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", SUITE, str(folder), MIRROR]
    subprocess.run([*_PRIVATE, *command], check=True, stdout=subprocess.DEVNULL, timeout=BUILD_SECONDS)
    for left in ("var/cache/apt", "var/lib/apt/lists", "var/log"):
        shutil.rmtree(folder / left)
        (folder / left).mkdir()


def _wheelhouse() -> Path:
    """Every wheel of uv.lock for the base's Python, downloaded once."""
    made_of = ("uv.lock", "requirements/uv.txt", "deploy/image/Dockerfile")
    key = hashlib.sha256(b"".join((ROOT / one).read_bytes() for one in made_of)).hexdigest()[:16]
    wheels = cache() / "wheels" / key
    if wheels.exists():
        return wheels
    shutil.rmtree(wheels.parent, ignore_errors=True)
    wheels.parent.mkdir(parents=True)
    # A mirror's settings, and the certificates of whoever sits between this machine and the index.
    passed = [f"--build-arg={name}={os.environ[name]}" for name in ("PIP_CERT", "PIP_INDEX_URL") if name in os.environ]
    passed += ["--volume=/etc/ssl/certs:/etc/ssl/certs:ro"] if "PIP_CERT" in os.environ else []
    with tempfile.TemporaryDirectory(dir=wheels.parent) as folder:
        _buildah(*_bud(*passed, "--target=wheelhouse", f"--output=type=local,dest={folder}/wheels"))
        Path(folder, "wheels").rename(wheels)
    return wheels


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.kube.image", description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--twice", action="store_true", help="build once more from nothing, and compare")
    chosen = options.parse_args()
    if why := missing():
        sys.stderr.write(f"no image: {why}\n")
        return 2
    built = build(ROOT / "dist")
    pause()
    size = built.archive.stat().st_size / 1e6
    sys.stdout.write(f"{built.archive}: {size:.0f} MB, {NAME}@{built.digest}\n{built.sbom}\n")
    if chosen.twice:
        with tempfile.TemporaryDirectory() as folder:
            again = build(Path(folder), fresh=True)
        same = again.digest == built.digest
        sys.stdout.write(f"{'the same' if same else 'ANOTHER'} digest when built again: {again.digest}\n")
        return 0 if same else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
