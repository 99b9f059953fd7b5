"""Whatever is done to a backup directory, an import is refused in words or gives what was there; never anything else."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from jetkeep.catalog import choose_streams, live_batches
from jetkeep.codecs.archive import ArchiveEncoder
from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.msgblock import TarEncoder
from jetkeep.codecs.s2 import S2Decoder, S2Encoder
from jetkeep.errors import BadDataError, JetkeepError
from jetkeep.interchange.importing import ImportOptions, import_directory
from jetkeep.model import ConsumerRecord, ConsumerState, Message
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository

NATSCLI = Path(__file__).parent.parent / "golden" / "natscli"
TS = 1_795_439_700_000_000_000
CONFIG = {"name": "ORDERS", "subjects": ["orders.>"], "storage": "file"}


class Importer:
    """Imports directories, and tells the fingerprint of what was committed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.labels = 0

    @property
    def _store(self) -> LocalStore:
        # A new one now and then: each import reads what the backups before it were.
        return LocalStore(self._folder / f"repo-{self.labels // 20}")

    async def fingerprint(self, directory: Path, *, accept_loss: bool = False) -> str:
        repository = await Repository.open_or_create(self._store, now_ns=time.time_ns)
        options = ImportOptions(accept_loss=accept_loss, label=f"n{self.labels}")
        self.labels += 1
        report = await import_directory(directory, repository, options, emit=lambda _: None, now_ns=time.time_ns)
        assert report.backup.status == "complete"
        return ",".join(entry.fingerprint for entry in report.backup.streams)

    async def joined(self, directory: Path) -> list[tuple[int, int, bytes]]:
        """Sequence, time, and all bytes of each message that the import of one stream gave."""
        store = self._store
        await self.fingerprint(directory)
        repository = await Repository.open(store)
        backup = await repository.read_backup(f"n{self.labels - 1}")
        manifest = (await choose_streams(repository, backup))[0].manifest
        return [
            (one.seq, one.ts, one.subject + one.headers + one.payload)
            async for batch in live_batches(repository, manifest)
            for one in batch
        ]

    async def refusal(self, directory: Path, *, accept_loss: bool = False) -> BadDataError:
        with pytest.raises(BadDataError) as caught:
            await self.fingerprint(directory, accept_loss=accept_loss)
        assert caught.value.means
        assert caught.value.hint
        return caught.value


@pytest.fixture
def importer(tmp_path: Path) -> Importer:
    return Importer(tmp_path)


def batch(count: int = 5) -> MessageBatch:
    return MessageBatch.of(
        Message(seq, TS + seq, b"orders.%d" % (seq % 2), b"NATS/1.0\r\nA: 1\r\n\r\n" if seq % 2 else b"", b"x" * seq)
        for seq in range(1, count + 1)
    )


STATE: dict[str, Any] = {"messages": 5, "bytes": 300, "first_seq": 1, "last_seq": 5, "consumer_count": 1}
CONSUMERS = [ConsumerRecord("c", {"durable_name": "c", "ack_policy": "explicit"}, ConsumerState())]


def archive(state: dict[str, Any] = STATE, messages: Iterable[MessageBatch] = (batch(),), *, end: bool = True) -> bytes:
    encoder = ArchiveEncoder()
    parts = [encoder.begin(state, CONSUMERS), *(encoder.messages(one) for one in messages)]
    return b"".join([*parts, encoder.end() if end else b""])


def tar(*, stream: str = "ORDERS") -> bytes:
    encoder = TarEncoder(stream, {**CONFIG, "name": stream}, "2026-11-23T13:15:00Z")
    return b"".join([encoder.begin(), encoder.messages(batch()), *encoder.end(5, CONSUMERS)])


def directory(
    path: Path, data: bytes, *, name: str = "stream.arc.s2", state: dict[str, Any] = STATE, frames: bool = True
) -> Path:
    path.mkdir(parents=True)
    (path / "backup.json").write_text(json.dumps({"config": CONFIG, "state": state}))
    (path / name).write_bytes(S2Encoder().encode(data) if frames else data)
    return path


#: Every byte takes minutes, for the `slow` suite; by default a stride that is no multiple of any structure's size.
STRIDES = [19, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("golden", ["account-2.10", "account-2.15"])
@pytest.mark.parametrize("name", ["backup.json", "data"])
async def test_every_truncation_is_refused(
    golden: str, name: str, stride: int, importer: Importer, tmp_path: Path
) -> None:
    def cut(data: bytes) -> Iterable[bytes]:
        return (data[:size] for size in (*range(0, len(data), stride), len(data) - 1))

    assert await _mangle(golden, name, importer, tmp_path, cut) == 0


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("golden", ["account-2.10", "account-2.15"])
@pytest.mark.parametrize("name", ["backup.json", "data"])
async def test_every_flipped_bit_is_refused_or_changes_no_message(
    golden: str, name: str, stride: int, importer: Importer, tmp_path: Path
) -> None:
    def flipped(data: bytes) -> Iterable[bytes]:
        for at in range(0, len(data), stride):
            yield data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]

    # A configuration has no digest; and what says from where a compressed byte is copied may say it in several ways.
    await _mangle(golden, name, importer, tmp_path, flipped)


async def _mangle(
    golden: str, name: str, importer: Importer, tmp_path: Path, mangled: Callable[[bytes], Iterable[bytes]]
) -> int:
    """Import each mangled form of a file; returns how many were taken, and gave the same messages as the whole one."""
    source = shutil.copytree(NATSCLI / golden / "ORDERS", tmp_path / "mangled")
    file = source / name if name == "backup.json" else next(source.glob("stream.*"))
    whole = await importer.fingerprint(source)
    taken = 0
    for data in mangled(file.read_bytes()):
        file.write_bytes(data)
        try:
            assert await importer.fingerprint(source) == whole
        except JetkeepError as refusal:
            assert refusal.code.split(".")[0] in ("data", "import")  # noqa: PT017
        else:
            taken += 1
    return taken


async def test_what_the_tests_below_spoil_is_taken_when_it_is_not_spoilt(importer: Importer, tmp_path: Path) -> None:
    one = await importer.fingerprint(directory(tmp_path / "a", archive()))
    assert one == await importer.fingerprint(directory(tmp_path / "b", tar(), name="stream.tar.s2"))


async def test_an_archive_without_the_messages_that_its_state_counts_is_refused(
    importer: Importer, tmp_path: Path
) -> None:
    refusal = await importer.refusal(directory(tmp_path / "d", archive(messages=())))
    assert refusal.code == "import.count"
    assert "holds 0 messages" in refusal.what
    assert "5 messages are not in this backup" in refusal.means


async def test_a_short_archive_can_be_imported_knowingly(importer: Importer, tmp_path: Path) -> None:
    short = directory(tmp_path / "d", archive(messages=(batch(4),)))
    assert (await importer.refusal(short)).code == "import.count"
    assert await importer.fingerprint(short, accept_loss=True)


@pytest.mark.parametrize(
    ("claim", "code"),
    [
        ({"messages": 4}, "import.mixed"),
        ({"messages": 6}, "import.mixed"),
        ({"first_seq": 2}, "import.mixed"),
        ({"last_seq": 4}, "import.mixed"),
        ({"last_seq": 2**63}, "import.mixed"),
    ],
    ids=str,
)
async def test_an_archive_beside_another_ones_configuration_is_refused(
    claim: dict[str, int], code: str, importer: Importer, tmp_path: Path
) -> None:
    spoilt = directory(tmp_path / "d", archive(), state={**STATE, **claim})
    assert (await importer.refusal(spoilt, accept_loss=True)).code == code


@pytest.mark.parametrize(
    ("key", "by", "code"),
    [
        ("messages", -1, "import.count"),
        ("messages", 1, "import.count"),
        ("first_seq", 1, "import.range"),
        ("last_seq", -1, None),
        ("last_seq", -5, "import.count"),
        ("last_seq", 5, None),
    ],
)
async def test_a_tar_beside_another_ones_configuration_is_refused(
    key: str, by: int, code: str | None, importer: Importer, tmp_path: Path
) -> None:
    spoilt = shutil.copytree(NATSCLI / "account-2.14" / "ORDERS", tmp_path / "d")
    meta = json.loads((spoilt / "backup.json").read_text())
    meta["state"][key] += by
    (spoilt / "backup.json").write_text(json.dumps(meta))
    if code is None:  # only the last sequence, which was deleted, is another: no message is missing
        await importer.fingerprint(spoilt)
    else:
        assert (await importer.refusal(spoilt)).code == code


async def test_a_file_under_the_other_forms_name_is_refused(importer: Importer, tmp_path: Path) -> None:
    for data, name in ((archive(), "stream.tar.s2"), (tar(), "stream.arc.s2")):
        refusal = await importer.refusal(directory(tmp_path / name, data, name=name))
        assert refusal.code == "data.snapshot-form"


async def test_a_tar_of_another_stream_is_refused(importer: Importer, tmp_path: Path) -> None:
    refusal = await importer.refusal(directory(tmp_path / "d", tar(stream="OTHER"), name="stream.tar.s2"))
    assert refusal.code.startswith("data.snapshot")


async def test_a_tar_that_ends_at_any_file_boundary_is_refused(importer: Importer, tmp_path: Path) -> None:
    golden = NATSCLI / "account-2.10" / "ORDERS"
    data = b"".join(S2Decoder().feed((golden / "stream.tar.s2").read_bytes()))
    boundaries = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    assert len(boundaries) > 10
    for at in boundaries:
        spoilt = tmp_path / str(at)
        spoilt.mkdir()
        shutil.copy(golden / "backup.json", spoilt)
        (spoilt / "stream.tar.s2").write_bytes(S2Encoder().encode(data[:at]))
        await importer.refusal(spoilt)


@pytest.mark.parametrize("stride", STRIDES)
async def test_a_wrong_byte_in_a_tar_is_found_by_its_hashes_even_under_a_right_checksum(
    stride: int, importer: Importer, tmp_path: Path
) -> None:
    """The servers' hash is over subject, headers and payload in one: it does not tell where one ends."""
    source = shutil.copytree(NATSCLI / "account-2.14" / "ORDERS", tmp_path / "mangled")
    whole = await importer.joined(source)
    data = b"".join(S2Decoder().feed((source / "stream.tar.s2").read_bytes()))
    refused = 0
    for at in range(0, len(data), 7 * stride):
        (source / "stream.tar.s2").write_bytes(
            S2Encoder().encode(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
        )
        try:
            # Names of owners, times of files, the index's sums: what no message depends on may be anything.
            assert await importer.joined(source) == whole
        except JetkeepError as refusal:
            assert refusal.code.startswith("data.snapshot")  # noqa: PT017
            refused += 1
    assert refused > len(data) // (7 * stride) // 2


async def test_what_is_not_compressed_is_refused(importer: Importer, tmp_path: Path) -> None:
    refusal = await importer.refusal(directory(tmp_path / "d", archive(), frames=False))
    assert refusal.code == "data.s2"


async def test_an_archive_that_ends_without_its_end_mark_is_refused(importer: Importer, tmp_path: Path) -> None:
    assert (await importer.refusal(directory(tmp_path / "d", archive(end=False)))).code == "data.archive"


async def test_two_consumers_of_one_name_are_refused(importer: Importer, tmp_path: Path) -> None:
    encoder = ArchiveEncoder()
    data = encoder.begin(STATE, CONSUMERS * 2) + encoder.messages(batch()) + encoder.end()
    assert (await importer.refusal(directory(tmp_path / "d", data))).code == "data.snapshot-consumer"
