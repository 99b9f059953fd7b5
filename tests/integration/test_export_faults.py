"""An export's directory appears complete or not at all, whatever goes wrong."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jetkeep.catalog import Chosen, choose_streams
from jetkeep.codecs.snapshot import Form
from jetkeep.errors import BadDataError, JetkeepError, StoreFailedError, UsageError
from jetkeep.interchange.exporting import export_stream
from jetkeep.interchange.importing import ImportOptions, import_directory
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository

NATSCLI = Path(__file__).parent.parent / "golden" / "natscli"
FORMS: list[Form] = ["archive", "tar"]


async def stored(folder: Path, golden: str = "account-2.15") -> tuple[Repository, Chosen]:
    repository = await Repository.open_or_create(LocalStore(folder / "repo"), now_ns=time.time_ns)
    source = NATSCLI / golden / "ORDERS"
    report = await import_directory(source, repository, ImportOptions(), emit=lambda _: None, now_ns=time.time_ns)
    return repository, (await choose_streams(repository, report.backup))[0]


async def export(repository: Repository, chosen: Chosen, directory: Path, form: Form = "archive") -> None:
    await export_stream(repository, chosen.manifest, directory, form, emit=lambda _: None)


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


async def test_a_directory_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    repository, chosen = await stored(tmp_path)
    there = tmp_path / "there"
    there.mkdir()
    (there / "mine").write_text("mine")
    linked = tmp_path / "linked"
    linked.symlink_to(tmp_path / "nowhere")
    for place in (there, there / "mine", linked):
        with pytest.raises(UsageError) as caught:
            await export(repository, chosen, place)
        assert caught.value.code == "export.not-empty"
    assert contents(there) == ["mine"]


async def test_an_empty_directory_is_filled_and_parents_are_made(tmp_path: Path) -> None:
    repository, chosen = await stored(tmp_path)
    (tmp_path / "empty").mkdir()
    await export(repository, chosen, tmp_path / "empty")
    await export(repository, chosen, tmp_path / "a" / "b", "tar")
    assert contents(tmp_path / "empty") == ["backup.json", "stream.arc.s2"]
    assert contents(tmp_path / "a") == ["b", "b/backup.json", "b/stream.tar.s2"]


@pytest.mark.parametrize("form", FORMS)
async def test_damage_anywhere_in_what_is_stored_stops_the_export(form: Form, tmp_path: Path) -> None:
    repository, chosen = await stored(tmp_path)
    segment = tmp_path / "repo" / chosen.manifest.segments[0].key
    whole = segment.read_bytes()
    segment.chmod(0o600)
    for at in range(0, len(whole), 7):
        segment.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        with pytest.raises(BadDataError):
            await export(repository, chosen, tmp_path / "out", form)
    segment.write_bytes(whole[:-1])
    with pytest.raises(BadDataError):
        await export(repository, chosen, tmp_path / "out", form)
    segment.unlink()
    with pytest.raises(BadDataError):
        await export(repository, chosen, tmp_path / "out", form)
    assert [path.name for path in tmp_path.iterdir()] == ["repo"]


async def test_an_export_that_would_lack_a_message_is_stopped(tmp_path: Path) -> None:
    repository, chosen = await stored(tmp_path)
    chosen.manifest.fingerprint = "0" * 32
    with pytest.raises(BadDataError) as caught:
        await export(repository, chosen, tmp_path / "out")
    assert caught.value.code == "data.fingerprint"
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="only root can mount a small file system")
@pytest.mark.parametrize("form", FORMS)
async def test_a_full_disk_leaves_nothing_behind(form: Form, tmp_path: Path) -> None:
    repository, chosen = await stored(tmp_path)
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "none", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let a test mount anything")
    try:
        (small / "fill").write_bytes(b"x" * 2000)
        with pytest.raises(StoreFailedError) as caught:
            await export(repository, chosen, small / "out", form)
        assert "No space left" in caught.value.what
        assert contents(small) == ["fill"]
    finally:
        subprocess.run(["umount", str(small)], check=True)


async def test_a_place_where_nothing_can_be_made_is_told(tmp_path: Path) -> None:
    repository, chosen = await stored(tmp_path)
    for place in (Path("/proc/self/out"), tmp_path / "repo" / "jetkeep.json" / "out", tmp_path / ("x" * 300)):
        with pytest.raises(JetkeepError) as caught:
            await export(repository, chosen, place)
        assert caught.value.code == "export.failed"


async def test_an_export_that_is_interrupted_leaves_nothing_behind(tmp_path: Path) -> None:
    await stored(tmp_path)
    # The signal comes while the directory has its temporary name.
    script = (
        "import jetkeep.interchange.exporting as e, os, signal, sys\n"
        "real = e._write_file\n"
        "def slow(path, data):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    import time; time.sleep(0.3)\n"
        "    real(path, data)\n"
        "e._write_file = slow\n"
        "from jetkeep.cli import main\n"
        f"sys.argv = ['jetkeep', 'export', 'ORDERS', {str(tmp_path / 'out')!r}, '--repo', {str(tmp_path / 'repo')!r}]\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert signal.SIGTERM.name in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["repo"]
