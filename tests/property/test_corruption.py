"""No flipped bit and no truncation of any stored object is believed: verify finds it, every reader refuses."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jetkeep.assembly.manifest import Place, Provenance, Reading, entry_of, manifest_of, timeline_for
from jetkeep.assembly.segments import Assembler
from jetkeep.catalog import live_batches
from jetkeep.codecs.batch import MessageBatch
from jetkeep.errors import JetkeepError
from jetkeep.model import ConsumerRecord, ConsumerState, Message, Pending, Position
from jetkeep.repository.documents import Backup, Selection, ServerFacts, Tool
from jetkeep.repository.fanout import FanOut
from jetkeep.repository.leases import lease
from jetkeep.repository.local import LocalStore
from jetkeep.repository.pins import pin
from jetkeep.repository.repository import Repository
from jetkeep.verify import verify
from tests.restoring import quiet

CREATED = "2026-11-23T13:15:00.123456789Z"
ROWS = [Message(at, 10**18 + at, b"orders.%d" % (at % 3), b"", b"payload %d" % at) for at in range(1, 40) if at % 7]


async def small_repository(folder: Path, labels: tuple[str, ...] = ("one", "two")) -> Repository:
    """Two backups of one stream, with a consumer, a pin, and gaps among its sequences."""
    repository = await Repository.create(LocalStore(folder), now_ns=time.time_ns)
    for label in labels:
        into = FanOut.alone(repository)
        place = Place(into, "prod", label, None)
        timeline = timeline_for(place, CREATED, 39)
        rows = ROWS if label == "one" else [*ROWS, Message(50, 10**18, b"orders.new", b"NATS/1.0\r\nA: 1\r\n\r\n", b"")]
        async with Assembler(into, "prod", "ORDERS", timeline, quiet) as assembler:
            await assembler.add(MessageBatch.of(rows))
            stored = await assembler.finish()
        state = {"messages": len(rows), "first_seq": 1, "last_seq": rows[-1].seq}
        record = ConsumerRecord(
            "c", {"durable_name": "c"}, ConsumerState(Position(3, 3), Position(1, 1), {3: Pending(2, 5)})
        )
        reading = Reading({"name": "ORDERS", "subjects": ["orders.>"]}, state, [record])
        manifest = manifest_of(
            place, timeline, reading, stored, Provenance("snapshot", "test", CREATED, 10**18, "2.15.1")
        )
        ref = await repository.put_manifest(manifest)
        backup = Backup(
            repository=repository.id,
            label=label,
            source="prod",
            started_at="2026-11-23T13:15:00.000000Z",
            finished_at="2026-11-23T13:15:01.000000Z",
            status="complete",
            tool=Tool(name="jetkeep", version="0"),
            server=ServerFacts(version="2.15.1"),
            host="here",
            tags=[],
            selection=Selection(include=[], exclude=[], total=1),
            streams=[entry_of(manifest, ref, stored)],
        )
        async with lease(repository.store, "backup", now_ns=time.time_ns) as held:
            await repository.commit(backup, held)
    return repository


async def read_all(folder: Path) -> list[Message]:
    """Whatever a reader does with backup `two`: open, commit, manifest, segments."""
    repository = await Repository.open(LocalStore(folder))
    backup = await repository.read_backup("two")
    manifest = await repository.read_manifest(backup, backup.streams[0])
    return [one async for batch in live_batches(repository, manifest) for one in batch]


def needed(repository_files: list[Path]) -> list[Path]:
    """The files that reading backup `two` needs."""
    others = ("/backups/one", "manifests/one", "/pins/")
    return [one for one in repository_files if not any(part in str(one) for part in others)]


async def check_one(folder: Path, path: Path, wrong: bytes, right: bytes, expected: list[Message]) -> None:
    path.write_bytes(wrong)
    try:
        try:
            found = await read_all(folder)
        except JetkeepError as refused:
            assert refused.exit_status in (30, 10), refused  # noqa: PT017
        else:
            assert found == expected, f"{path.name}: damaged bytes were believed"
            assert path not in needed([path]) or "segments" in path.parts, path
        try:
            report = await verify(await Repository.open(LocalStore(folder)), emit=quiet)
        except JetkeepError as refused:
            assert refused.exit_status in (30, 10)  # noqa: PT017
            assert path.name == "jetkeep.json"
        else:
            assert not report.sound, f"verify says that damaged {path.name} is sound"
    finally:
        path.write_bytes(right)


def objects(folder: Path) -> list[Path]:
    return sorted(one for one in folder.rglob("*") if one.is_file() and "leases" not in one.parts)


async def every_damage(folder: Path, step: int) -> None:
    repository = await small_repository(folder)
    await pin(repository, "one", "kept", now_ns=time.time_ns)
    expected = await read_all(folder)
    for path in objects(folder):
        right = path.read_bytes()
        for at in range(0, len(right), step):
            flipped = bytearray(right)
            flipped[at] ^= 1 << (at % 8)
            await check_one(folder, path, bytes(flipped), right, expected)
        for length in range(0, len(right), step * 3):
            await check_one(folder, path, right[:length], right, expected)
    assert await read_all(folder) == expected


def test_damage_is_found_wherever_it_is(tmp_path: Path) -> None:
    asyncio.run(every_damage(tmp_path / "r", step=29))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_byte_and_every_length(tmp_path: Path) -> None:
    asyncio.run(every_damage(tmp_path / "r", step=1))


def test_a_missing_object_is_named(tmp_path: Path) -> None:
    async def run() -> None:
        await small_repository(tmp_path / "r")
        for path in objects(tmp_path / "r"):
            if path.name == "jetkeep.json" or "backups" in path.parts:
                continue
            right = path.read_bytes()
            path.unlink()
            report = await verify(await Repository.open(LocalStore(tmp_path / "r")), emit=quiet)
            assert [one.kind for one in report.findings if one.severity == "damage"] == ["missing"]
            assert path.name in report.findings[0].key
            path.write_bytes(right)

    asyncio.run(run())


@pytest.mark.parametrize("command", [["verify"], ["cat", "ORDERS"], ["export", "ORDERS", "out"], ["drill", "-q"]])
def test_commands_refuse_damaged_segments_without_a_traceback(tmp_path: Path, command: list[str]) -> None:
    asyncio.run(small_repository(tmp_path / "r", labels=("two",)))
    segment = next(one for one in objects(tmp_path / "r") if one.suffix == ".parquet")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 4
    segment.write_bytes(bytes(data))
    run = subprocess.run(
        [sys.executable, "-m", "jetkeep", *command, "--repo", str(tmp_path / "r")],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert run.returncode == 30, run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()
