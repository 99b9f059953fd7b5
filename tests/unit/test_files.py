"""Files beside the streams: what is found, what the archive holds, and that a hostile one writes nothing."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
import zstandard

from jetkeep.capture import files
from jetkeep.capture.files import find_files, pack, unpack
from jetkeep.errors import BadDataError, UsageError


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    root = tmp_path / "etc"
    (root / "jwt" / "deep").mkdir(parents=True)
    (root / "server.conf").write_text("port: 4222\n")
    (root / "jwt" / "A.jwt").write_bytes(b"one")
    (root / "jwt" / "deep" / "B.jwt").write_bytes(b"")
    (root / "jwt" / "deep" / "B.jwt").chmod(0o755)
    return root


def test_files_folders_and_globs_are_found_once_each(etc: Path) -> None:
    every = [etc / "jwt" / "A.jwt", etc / "jwt" / "deep" / "B.jwt", etc / "server.conf"]
    assert find_files([str(etc / "server.conf"), str(etc), f"{etc}/**/*.jwt"]) == every
    assert find_files([f"{etc}/jwt/*.jwt"]) == every[:1]
    assert find_files([os.path.relpath(etc / "server.conf")]) == every[2:]


def test_a_secret_as_kubernetes_mounts_it_is_found_under_its_own_name(etc: Path) -> None:
    mounted = etc / "secret"
    (mounted / "..2026_11_23").mkdir(parents=True)
    (mounted / "..2026_11_23" / "user.creds").write_bytes(b"seed")
    (mounted / "..data").symlink_to("..2026_11_23")
    (mounted / "user.creds").symlink_to("..data/user.creds")
    assert find_files([str(mounted)]) == [mounted / "user.creds"]
    archive, _ = pack([str(mounted)])
    (written,) = unpack({"": archive}, etc / "out")
    assert not written.is_symlink()
    assert written.read_bytes() == b"seed"


def test_files_come_back_as_they_were_and_are_their_owners_alone(etc: Path, tmp_path: Path) -> None:
    archive, count = pack([str(etc)])
    assert count == 3
    assert pack([str(etc)])[0] == archive
    out = tmp_path / "out"
    written = unpack({"": archive}, out)
    assert [one.relative_to(out) for one in written] == [one.relative_to("/") for one in find_files([str(etc)])]
    for one in written:
        assert one.read_bytes() == (Path("/") / one.relative_to(out)).read_bytes()
        assert one.stat().st_mode & 0o777 == 0o600
    assert {one.stat().st_mode & 0o777 for one in (out, *written[0].parents) if out in (one, *one.parents)} == {0o700}
    # Ordinary tools read it.
    with tarfile.open(fileobj=io.BytesIO(zstandard.decompress(archive))) as tar:
        modes = {Path(info.name).name: info.mode & 0o777 for info in tar}
    assert modes["B.jwt"] == 0o755


def test_a_file_that_cannot_be_had_is_named(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(etc / "pipe")
    (etc / "dangling").symlink_to("nowhere")
    for pattern, words in (("absent", "absent"), ("*.none", "none"), ("pipe", "pipe"), ("dangling", "dangling")):
        with pytest.raises(UsageError, match=words) as caught:
            pack([str(etc / pattern)])
        assert caught.value.code == "usage.files"
    monkeypatch.setattr(files, "MOST_BYTES", 12)
    with pytest.raises(UsageError, match="larger"):
        pack([str(etc / "server.conf"), str(etc / "jwt" / "A.jwt")])


def archive_of(*infos: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for info in infos:
            tar.addfile(info, io.BytesIO(b"x" * info.size))
    return zstandard.compress(out.getvalue())


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    info.size = 1 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("/etc/passwd"),
        member("../above"),
        member("a/../../above"),
        member("link", tarfile.SYMTYPE, "/etc"),
        member("hard", tarfile.LNKTYPE, "good"),
        member("device", tarfile.CHRTYPE),
        member("folder", tarfile.DIRTYPE),
    ],
    ids=lambda info: info.name,
)
def test_an_archive_that_reaches_outside_writes_nothing(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    with pytest.raises(BadDataError):
        unpack({"a": archive_of(member("good")), "b": archive_of(member("good"), bad)}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_are_no_archive_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = archive_of(member("good"))
    for data in (b"", b"x", good[:-3], good + b"x", zstandard.compress(b"no tar at all")):
        with pytest.raises(BadDataError):
            unpack({"": data}, tmp_path / "out")
    monkeypatch.setattr(files, "MOST_BYTES", 100)
    with pytest.raises(BadDataError, match="size"):
        unpack({"": good}, tmp_path / "out")


def test_nothing_that_is_there_is_overwritten(etc: Path) -> None:
    archive, _ = pack([str(etc)])
    link = etc.parent / "link"
    link.symlink_to(etc.parent)
    for place in (etc, etc / "server.conf", link):
        with pytest.raises(UsageError, match="there already"):
            unpack({"": archive}, place)
