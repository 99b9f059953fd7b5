"""A few kilobytes that unpack to gigabytes, or claim to: refused at once, in bounded memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import pytest

STATE = {"messages": 20, "bytes": 1, "first_seq": 1, "last_seq": 20, "consumer_count": 0}
CHUNK = 4 * 1024 * 1024
MIB, GIB = 2**20, 2**30


def uvarint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def chunk(kind: int, unpacked: bytes, data: bytes) -> bytes:
    crc: int = google_crc32c.value(unpacked)
    masked: int = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return bytes([kind]) + (len(data) + 4).to_bytes(3, "little") + masked.to_bytes(4, "little") + data


def plain(data: bytes) -> bytes:
    return chunk(1, data, data)


def bomb(byte: int, size: int) -> bytes:
    """`size` bytes of one value: for each 4 MiB one literal, one copy, and one repeat of nearly all of it."""
    repeat = b"\x1d\x00" + (CHUNK - 5 - 65540).to_bytes(3, "little")
    block = uvarint(CHUNK) + bytes([0, byte]) + b"\x01\x01" + repeat
    return chunk(0, bytes([byte]) * CHUNK, block) * (size // CHUNK)


def entry(name: bytes, seq: int = 0, headers: int = 0, payload: int = 0) -> bytes:
    return b"".join((uvarint(len(name)), b"\0", uvarint(seq), uvarint(headers), uvarint(payload), name))


def archive(*rest: bytes) -> bytes:
    state = json.dumps(STATE).encode()
    return plain(b"NATSARC1" + entry(b"state.json", payload=len(state)) + state + b"".join(rest))


def member(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, "/etc/passwd" if kind != tarfile.REGTYPE else ""
    return plain(info.tobuf(tarfile.USTAR_FORMAT))


META = plain(b'{"name":"S"}'.ljust(512, b"\0"))


def bombs() -> Iterator[object]:
    arc, tar = "stream.arc.s2", "stream.tar.s2"
    state = entry(b"state.json", payload=GIB)
    yield pytest.param(arc, bomb(0, 4 * GIB), id="nothing but zeros, as an archive")
    yield pytest.param(tar, bomb(0, 4 * GIB), id="nothing but zeros, as a tar")
    yield pytest.param(arc, plain(b"NATSARC1" + state) + bomb(0x20, GIB), id="a state of a gigabyte")
    yield pytest.param(arc, plain(b"NATSARC1" + entry(b"x" * 9) + b"[" * MIB) + bomb(0x5B, GIB), id="brackets")
    yield pytest.param(arc, archive(entry(b"s", 1, 0, 2**60)) + bomb(0, GIB), id="a payload of an exabyte")
    yield pytest.param(arc, archive(entry(b"s", 1, 2**63, 2**63)) + bomb(0, GIB), id="lengths whose sum overflows")
    yield pytest.param(arc, plain(b"NATSARC1" + uvarint(2**62) + bytes(8)) + bomb(0, GIB), id="an endless name")
    yield pytest.param(arc, plain(b"NATSARC1" + b"\xff" * 64), id="an endless integer")
    yield pytest.param(tar, member("meta.inf", 7 * GIB) + bomb(0x5B, 4 * GIB), id="a configuration of gigabytes")
    yield pytest.param(tar, member("meta.inf", 16 * MIB) + bomb(0x5B, 16 * MIB), id="a configuration of brackets")
    yield pytest.param(tar, member("meta.inf", 12) + META + member("x" * 90, 7 * GIB) + bomb(1, GIB), id="no such file")
    for name in ("../../etc/passwd", "/etc/passwd", "msgs/../../x", "obs/../meta.inf"):
        yield pytest.param(tar, member("meta.inf", 12) + META + member(name, 5) + META, id=f"a path {name}")
    for kind in (
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
        tarfile.GNUTYPE_SPARSE,
    ):
        yield pytest.param(tar, member("meta.inf", 0, kind), id=f"a member of type {kind!r}")
    yield pytest.param(arc, chunk(0, b"", uvarint(2**32 - 1) + b"\0"), id="a block that claims 4 GiB")
    yield pytest.param(arc, b"\xfe\xff\xff\xff" + bytes(2**24 - 1), id="padding and nothing else")


@pytest.mark.parametrize(("name", "data"), list(bombs()))
def test_bombs_are_refused_in_bounded_memory(name: str, data: bytes, tmp_path: Path) -> None:
    source = tmp_path / "S"
    source.mkdir()
    (source / "backup.json").write_text(json.dumps({"config": {"name": "S", "storage": "file"}, "state": STATE}))
    (source / name).write_bytes(b"\xff\x06\x00\x00S2sTwO" + data)
    before = set(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-m", "jetkeep", "import", str(source), "--repo", str(tmp_path / "repo"), "--json", "-q"],
        capture_output=True,
        timeout=30,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (512 * MIB, 512 * MIB)),
    )
    assert done.returncode == 30, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["code"].startswith("data.")
    assert error["means"]
    assert b"Traceback" not in done.stderr
    # Nothing was written anywhere but the empty repository.
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert {path.name for path in written} == {"jetkeep.json"}
