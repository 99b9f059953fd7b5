"""Directories that natscli 0.5.1 made of real servers, against what these servers told themselves (natscli/make.py)."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from jetkeep.catalog import Chosen, choose_streams, live_batches
from jetkeep.errors import BadDataError
from jetkeep.interchange.importing import ImportOptions, ImportReport, import_directory
from jetkeep.interchange.moments import rfc3339
from jetkeep.model import Event, Message
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository

NATSCLI = Path(__file__).parent / "natscli"
VERSIONS = ("2.10", "2.11", "2.12", "2.14", "2.15")


async def imported(
    directory: Path, tmp_path: Path, *, accept_loss: bool = False
) -> tuple[Repository, ImportReport, dict[str, Chosen]]:
    repository = await Repository.open_or_create(LocalStore(tmp_path / "repo"), now_ns=time.time_ns)
    options = ImportOptions(source="shop", accept_loss=accept_loss)
    events: list[Event] = []
    report = await import_directory(directory, repository, options, emit=events.append, now_ns=time.time_ns)
    chosen = await choose_streams(repository, await repository.read_backup(report.backup.label))
    return repository, report, {one.entry.name: one for one in chosen}


async def messages(repository: Repository, chosen: Chosen) -> list[Message]:
    return [message async for batch in live_batches(repository, chosen.manifest) for message in batch]


def told(row: list[Any]) -> tuple[int, str, bytes, bytes, bytes]:
    seq, when, subject, headers, payload = row
    whole, _, fraction = when.removesuffix("Z").partition(".")
    subject, headers, payload = (base64.b64decode(one) for one in (subject, headers, payload))
    return seq, f"{whole}.{fraction.ljust(9, '0')}Z", subject, headers, payload


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_account_of_each_server_version_is_imported_exactly(version: str, tmp_path: Path) -> None:
    repository, report, streams = await imported(NATSCLI / f"account-{version}", tmp_path)
    assert (report.backup.status, report.failed) == ("complete", {})
    expected = json.loads((NATSCLI / "expected" / f"{version}.json").read_text())
    assert set(streams) == set(expected)
    for name, server in expected.items():
        manifest = streams[name].manifest
        found = await messages(repository, streams[name])
        assert [(one.seq, rfc3339(one.ts), *one[2:]) for one in found] == [told(row) for row in server["messages"]]
        state = server["state"]
        assert manifest.messages == state["messages"]
        assert (manifest.first_seq, manifest.last_seq) == (state["first_seq"], state["last_seq"])
        assert manifest.config["name"] == name
        assert manifest.method == "import"
        assert {one.name for one in manifest.consumers} == set(server["consumers"])
        for doc in manifest.consumers:
            consumer = server["consumers"][doc.name]
            for what in ("delivered", "ack_floor"):
                keys = ("consumer_seq", "stream_seq")
                position = getattr(doc.state, what)
                assert {key: getattr(position, key) for key in keys} == {key: consumer[what][key] for key in keys}
            assert len(doc.state.pending) == consumer["num_ack_pending"]
            assert len(doc.state.redelivered) == consumer["num_redelivered"]


@pytest.mark.parametrize("version", VERSIONS[:-1])
async def test_a_tar_tells_when_the_stream_was_created(version: str, tmp_path: Path) -> None:
    _, _, streams = await imported(NATSCLI / f"account-{version}", tmp_path)
    expected = json.loads((NATSCLI / "expected" / f"{version}.json").read_text())
    for name, chosen in streams.items():
        assert chosen.manifest.created_at == expected[name]["created"]
        assert chosen.manifest.notes == []


async def test_an_archive_does_not_and_the_import_says_what_stands_in(tmp_path: Path) -> None:
    repository, _, streams = await imported(NATSCLI / "account-2.15", tmp_path)
    first = (await messages(repository, streams["ORDERS"]))[0]
    assert streams["ORDERS"].manifest.created_at == rfc3339(first.ts)
    assert "created" in streams["ORDERS"].manifest.notes[0]
    assert streams["EMPTY"].manifest.created_at == "1970-01-01T00:00:00Z"


async def test_importing_twice_stores_the_messages_once(tmp_path: Path) -> None:
    _, _, once = await imported(NATSCLI / "account-2.15", tmp_path)
    _, _, again = await imported(NATSCLI / "account-2.15", tmp_path)
    assert once["ORDERS"].manifest.segments == again["ORDERS"].manifest.segments
    assert once["ORDERS"].backup.label != again["ORDERS"].backup.label


async def test_an_edited_backup_is_imported_and_says_that_it_was_edited(tmp_path: Path) -> None:
    repository, _, streams = await imported(NATSCLI / "edited-2.15", tmp_path)
    manifest = streams["ORDERS"].manifest
    assert {message.subject for message in await messages(repository, streams["ORDERS"])} == {b"orders.1"}
    assert len(manifest.consumers) == 3
    assert any("edited" in note and "orders.1" in note for note in manifest.notes)


async def test_a_captured_backup_is_imported_and_says_that_it_was_captured(tmp_path: Path) -> None:
    repository, _, streams = await imported(NATSCLI / "captured-2.15", tmp_path)
    expected = json.loads((NATSCLI / "expected" / "2.15.json").read_text())["ORDERS"]["messages"]
    found = await messages(repository, streams["ORDERS"])
    assert [(one.seq, rfc3339(one.ts), one.payload) for one in found] == [
        (seq, when, payload) for seq, when, _, _, payload in map(told, expected)
    ]
    assert any("captured" in note for note in streams["ORDERS"].manifest.notes)


async def test_the_archive_that_a_server_called_a_success_and_that_holds_no_message_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataError) as caught:
        await imported(NATSCLI / "errors-2.10", tmp_path, accept_loss=True)
    assert caught.value.code == "data.snapshot-errors"
    assert "corrupt input" in caught.value.what
    repository = await Repository.open(LocalStore(tmp_path / "repo"))
    assert await repository.backups() == ([], [])
