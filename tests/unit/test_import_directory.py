"""A backup directory is opened without trusting anything in it."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from jetkeep.errors import BadDataError, JetkeepError, UsageError
from jetkeep.interchange.directory import META_BYTES, read_directory, stream_directories

META: dict[str, Any] = {
    "config": {"name": "ORDERS", "storage": "file"},
    "state": {"messages": 1, "bytes": 40, "first_seq": 1, "last_seq": 1, "consumer_count": 0},
}


def make(path: Path, meta: object = META, data_file: str | None = "stream.arc.s2") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "backup.json").write_bytes(meta if isinstance(meta, bytes) else json.dumps(meta).encode())
    if data_file:
        (path / data_file).write_bytes(b"data")
    return path


def code_of(path: Path) -> str:
    with pytest.raises(JetkeepError) as caught:
        read_directory(path)
    assert caught.value.means
    assert caught.value.hint
    return caught.value.code


@pytest.mark.parametrize(("name", "form"), [("stream.arc.s2", "archive"), ("stream.tar.s2", "tar")])
def test_old_and_new_file_names_are_known(tmp_path: Path, name: str, form: str) -> None:
    found = read_directory(make(tmp_path, data_file=name))
    assert (found.stream, found.form, found.data_file) == ("ORDERS", form, name)


def test_a_directory_of_directories_is_an_account(tmp_path: Path) -> None:
    for name in ("B", "A", ".trash"):
        make(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not part of it")
    assert stream_directories(tmp_path) == [tmp_path / "A", tmp_path / "B"]
    assert stream_directories(tmp_path / "A") == [tmp_path / "A"]


def test_what_is_no_backup_is_a_wrong_argument(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError) as caught:
            stream_directories(path)
        assert caught.value.code == "import.no-backup"


def test_what_the_official_cli_leaves_of_a_failed_backup_is_incomplete(tmp_path: Path) -> None:
    empty = tmp_path / "a"
    empty.mkdir()
    assert code_of(empty) == "import.incomplete"
    assert code_of(make(tmp_path / "b", meta=b"")) == "import.incomplete"
    assert code_of(make(tmp_path / "c", data_file=None)) == "import.incomplete"


def test_two_archives_beside_one_configuration_are_refused(tmp_path: Path) -> None:
    make(tmp_path, data_file="stream.tar.s2")
    (tmp_path / "stream.arc.s2").write_bytes(b"data")
    assert code_of(tmp_path) == "import.two-archives"


@pytest.mark.parametrize("name", ["backup.json", "stream.arc.s2"])
def test_links_devices_and_pipes_are_refused(tmp_path: Path, name: str) -> None:
    target = make(tmp_path / "real") / name
    for number, place in enumerate((target, Path("/dev/zero"), Path("../../etc/hostname"), Path("nowhere"))):
        linked = make(tmp_path / f"linked{number}")
        (linked / name).unlink()
        (linked / name).symlink_to(place)
        assert _code_of_all(linked) == "import.special-file"
    piped = make(tmp_path / "piped")
    (piped / name).unlink()
    os.mkfifo(piped / name)
    assert _code_of_all(piped) == "import.special-file"
    folder = make(tmp_path / "folder")
    (folder / name).unlink()
    (folder / name).mkdir()
    assert _code_of_all(folder) == "import.special-file"


def _code_of_all(path: Path) -> str:
    with pytest.raises(BadDataError) as caught:
        read_directory(path).open_data()
    return caught.value.code


def test_a_linked_stream_in_an_account_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "real")
    (tmp_path / "account").mkdir()
    (tmp_path / "account" / "S").symlink_to(tmp_path / "real")
    with pytest.raises(BadDataError) as caught:
        stream_directories(tmp_path / "account")
    assert caught.value.code == "import.special-file"


def changed(block: str, key: str, value: object) -> dict[str, Any]:
    return {**META, block: {**META[block], key: value}}


@pytest.mark.parametrize(
    "meta",
    [
        b"not JSON",
        b"\xff\xfe",
        b'{"config":' + b"[" * 100_000,
        b"[]",
        b"null",
        b'{"config": {"name": "S"}}',
        b'{"config": {"name": "S"}, "state": {"messages": 1e400}}',
        {"config": [], "state": {}},
        {"config": {"name": "S"}, "state": None},
        changed("config", "name", None),
        changed("config", "name", ""),
        changed("config", "name", "../../etc"),
        changed("config", "name", "a/b"),
        changed("config", "name", "a.b"),
        changed("config", "name", "a b"),
        changed("config", "name", "a\x00b"),
        changed("config", "name", "x" * 300),
        changed("state", "messages", -1),
        changed("state", "messages", "1"),
        changed("state", "messages", True),
        changed("state", "messages", 1.5),
        changed("state", "last_seq", 2**64),
        changed("state", "first_seq", None),
        changed("state", "consumer_count", []),
    ],
    ids=str,
)
def test_a_configuration_that_cannot_be_is_refused(tmp_path: Path, meta: object) -> None:
    assert code_of(make(tmp_path, meta)) == "import.meta"


def test_a_configuration_larger_than_any_server_writes_is_not_read_into_memory(tmp_path: Path) -> None:
    make(tmp_path)
    with (tmp_path / "backup.json").open("wb") as file:
        file.truncate(10 * 2**30)
    tracemalloc.start()
    assert code_of(tmp_path) == "import.meta"
    assert tracemalloc.get_traced_memory()[1] < 3 * META_BYTES
    tracemalloc.stop()


def test_where_an_edited_or_captured_backup_came_from_is_kept_in_words(tmp_path: Path) -> None:
    edit = {"version": "nats 0.5.1", "options": ["--subject", "a"], "source_digest": "ab"}
    found = read_directory(make(tmp_path, {**META, "edit": edit}))
    assert len(found.provenance) == 1
    assert "source_digest" in found.provenance[0]
    found = read_directory(make(tmp_path, {**META, "source": {"subjects": ["a"], "dropped": 3}}))
    assert '"dropped":3' in found.provenance[0]
    assert read_directory(make(tmp_path)).provenance == []
