"""The whole loop in a sealed repository, as a process: who backs up has no secret, who restores has the identity."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jetkeep.model import JsonDict
from jetkeep.repository import layout
from tests.backing_up import run
from tests.conftest import StartServer
from tests.object_stores.seaweed import Bucket
from tests.publisher import Publisher
from tests.repositories import files
from tests.restoring import connected

COUNT = 300


@pytest.fixture
def source(start_server: StartServer) -> str:
    """A server with a stream."""

    async def prepared() -> str:
        server = await start_server()
        async with Publisher(server.url) as publisher:
            await publisher.create("ORDERS", storage="file")
            await publisher.store_all((f"ORDERS.{at % 5}", b"secret order %d" % at, b"") for at in range(COUNT))
        return server.url

    return asyncio.run(prepared())


@pytest.fixture
def people(tmp_path: Path) -> dict[str, str]:
    """Recipients by the name of the file that holds their identity."""
    return {
        name: run("key", "new", str(tmp_path / name), repo="").stdout.strip() for name in ("alice", "bob", "stranger")
    }


def refusal(*words: str, repo: Path | str, url: str = "", status: int = 12) -> str:
    """The code with which a command is refused."""
    done = run(*words, "--json", repo=repo, url=url, check=status)
    return str(json.loads(done.stdout)["error"]["code"])


def told(*words: str, repo: Path | str, url: str = "", check: int = 0) -> JsonDict:
    document: JsonDict = json.loads(run(*words, "--json", repo=repo, url=url, check=check).stdout)
    return document


def test_a_machine_without_the_identity_backs_up_lists_verifies_and_expires(
    source: str, people: dict[str, str], tmp_path: Path
) -> None:
    repo = tmp_path / "repo"
    run("init", "--encrypt-to", people["alice"], "--encrypt-to", people["bob"], repo=repo)
    assert told("backup", "--label", "one", repo=repo, url=source)["status"] == "complete"
    told("backup", "--label", "two", repo=repo, url=source)
    assert not [key for key, data in files(repo).items() if b"secret order" in data or b"PAR1" in data]

    info = told("info", repo=repo)
    assert info["encrypted"]
    assert [one["messages"] for one in info["backups"]] == [COUNT, COUNT]
    assert told("info", "one", repo=repo)["streams"][0]["name"] == "ORDERS"
    checked = told("verify", repo=repo)
    assert checked["sound"]
    assert checked["digests_only"]
    assert told("expire", "--keep-last", "1", repo=repo)["repositories"][0]["expired"] == ["one"]
    assert told("verify", repo=repo)["sound"]
    for path in [repo / key for key in files(repo) if layout.kind_of(key) == "segment"]:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert not told("verify", repo=repo, check=30)["sound"]


def test_whoever_has_an_identity_restores_prints_rehearses_exports_and_verifies(
    source: str, people: dict[str, str], tmp_path: Path, start_server: StartServer
) -> None:
    repo = tmp_path / "repo"
    run("init", "--encrypt-to", people["alice"], "--encrypt-to", people["bob"], repo=repo)
    run("backup", repo=repo, url=source)
    for name in ("alice", "bob"):
        words = run("cat", "ORDERS", "--seq", "7", "--raw", "--identity", str(tmp_path / name), repo=repo).stdout
        assert "secret order 6" in words
    alice = ("--identity", str(tmp_path / "alice"))
    checked = told("verify", *alice, repo=repo)
    assert (checked["sound"], checked["digests_only"], checked["messages"]) == (True, False, COUNT)
    assert told("drill", *alice, repo=repo)["verdict"] == "SUCCESSFUL"
    run("export", "ORDERS", str(tmp_path / "out"), *alice, repo=repo)

    async def restored() -> int:
        server = await start_server()
        await asyncio.to_thread(run, "restore", *alice, repo=repo, url=server.url)
        async with connected(server) as js:
            return int((await js.stream_info("ORDERS"))["state"]["messages"])

    assert asyncio.run(restored()) == COUNT


@pytest.mark.parametrize(
    "command", [("cat", "ORDERS"), ("restore",), ("drill",), ("export", "ORDERS", "out"), ("restore", "--dry-run")]
)
def test_without_the_right_identity_reading_is_refused(
    command: tuple[str, ...], source: str, people: dict[str, str], tmp_path: Path
) -> None:
    repo = tmp_path / "repo"
    run("init", "--encrypt-to", people["alice"], repo=repo)
    run("backup", repo=repo, url=source)
    assert refusal(*command, repo=repo, url=source) == "key.none"
    stranger = ("--identity", str(tmp_path / "stranger"))
    assert refusal(*command, *stranger, repo=repo, url=source) == "key.wrong"
    assert (
        refusal(*command, "--identity", str(tmp_path / "absent"), repo=repo, url=source, status=2) == "usage.identity"
    )
    for path in (repo / "keys").iterdir():
        path.unlink()
    alice = ("--identity", str(tmp_path / "alice"))
    assert refusal(*command, *alice, repo=repo, url=source) == "key.missing"


def test_the_keys_of_another_repository_do_not_open_this_one(
    source: str, people: dict[str, str], tmp_path: Path
) -> None:
    for name in ("one", "other"):
        run("init", "--encrypt-to", people["alice"], repo=tmp_path / name)
        run("backup", "--label", "b", repo=tmp_path / name, url=source)
    key = layout.keys_key(1)
    (tmp_path / "one" / key).write_bytes((tmp_path / "other" / key).read_bytes())
    code = refusal("cat", "ORDERS", "--backup", "b", "--identity", str(tmp_path / "alice"), repo=tmp_path / "one")
    assert code == "key.other-repository"


def test_recipients_are_added_removed_and_the_key_rotated(source: str, people: dict[str, str], tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    alice, bob = (("--identity", str(tmp_path / name)) for name in ("alice", "bob"))
    run("init", "--encrypt-to", people["alice"], repo=repo)
    run("backup", "--label", "before", repo=repo, url=source)
    assert refusal("key", "add", people["bob"], repo=repo) == "key.none"
    assert told("key", "add", people["bob"], *alice, repo=repo)["recipients"] == [people["alice"], people["bob"]]
    first = told("key", "list", repo=repo)["sealed_to"]
    assert told("key", "remove", people["alice"], *bob, repo=repo)["recipients"] == [people["bob"]]
    assert refusal("cat", "ORDERS", *alice, repo=repo) == "key.wrong"
    assert refusal("key", "remove", people["bob"], *bob, repo=repo, status=2) == "usage.recipient"
    assert told("key", "rotate", *bob, repo=repo)["sealed_to"] != first
    run("backup", "--label", "after", repo=repo, url=source)
    for label in ("before", "after"):
        assert "secret order" in run("cat", "ORDERS", "--raw", "--backup", label, *bob, repo=repo).stdout


@pytest.mark.parametrize("way", ["variable", "secret", "command", "passphrase"])
def test_the_identity_comes_from_a_file_a_variable_a_command_or_is_a_passphrase(
    way: str, source: str, people: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, file = tmp_path / "repo", tmp_path / "alice"
    words: tuple[str, ...] = ("--encrypt-to", people["alice"])
    if way == "passphrase":
        monkeypatch.setenv("JETKEEP_PASSPHRASE", "correct horse")
        words = ("--encrypt-passphrase",)
    run("init", *words, repo=repo)
    monkeypatch.delenv("JETKEEP_PASSPHRASE", raising=False)
    run("backup", repo=repo, url=source)
    extra: tuple[str, ...] = ()
    match way:
        case "variable":
            monkeypatch.setenv("JETKEEP_IDENTITY", str(file))
        case "secret":
            monkeypatch.setenv("JETKEEP_IDENTITY", file.read_text().splitlines()[-1])
        case "command":
            extra = ("--identity-command", f"cat '{file}'")
        case "passphrase":
            monkeypatch.setenv("JETKEEP_PASSPHRASE", "correct horse")
    assert "secret order" in run("cat", "ORDERS", "--raw", *extra, repo=repo).stdout


def test_a_configured_repository_is_created_sealed_and_its_recipient_is_pinned(
    source: str, people: dict[str, str], bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "jetkeep.toml"
    table = f"[repositories.offsite]\nurl = '{bucket.url}'\nencrypt-to = ['{people['alice']}']\n"
    config.write_text(table)
    monkeypatch.setenv("JETKEEP_CONFIG", str(config))
    run("backup", repo="", url=source)
    monkeypatch.delenv("JETKEEP_REPO", raising=False)
    sealed_to = told("key", "list", "--repo", "offsite", repo="")["sealed_to"]
    config.write_text(table + f"sealed-to = '{sealed_to}'\n")
    assert told("backup", "--repo", "offsite", repo="", url=source)["status"] == "complete"
    run("key", "rotate", "--identity", str(tmp_path / "alice"), "--repo", "offsite", repo="")
    assert refusal("backup", "--repo", "offsite", repo="", url=source) == "key.not-pinned"
    config.write_text(table)
    read = run("cat", "ORDERS", "--raw", "--repo", "offsite", "--identity", str(tmp_path / "alice"), repo="")
    assert "secret order" in read.stdout


def test_no_cryptography_is_loaded_where_nothing_is_sealed(source: str, tmp_path: Path) -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['jetkeep', 'backup', '--quiet']\n"
        "try:\n    runpy.run_module('jetkeep', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print([one for one in ('pyrage', 'cryptography', 'jetkeep.repository.sealing') if one in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "JETKEEP_REPO": str(tmp_path / "repo"), "NATS_URL": source},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_one_run_fills_an_open_repository_and_a_sealed_one_and_a_writer_without_identity_cannot_catch_up(
    source: str, people: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JETKEEP_CONFIG", str(tmp_path / "jetkeep.toml"))
    sealed = f"encrypt-to = ['{people['alice']}']\n"

    def configure(first: str, second: str, **extra: str) -> None:
        tables = [
            f"[repositories.{name}]\nurl = '{tmp_path}/{name}'\n{extra.get(name, '')}" for name in (first, second)
        ]
        (tmp_path / "jetkeep.toml").write_text("\n".join(tables))

    monkeypatch.delenv("JETKEEP_REPO", raising=False)
    configure("open", "sealed", sealed=sealed)
    both = told("backup", "--label", "a", repo="", url=source)["repositories"]
    assert [one["status"] for one in both] == ["committed", "committed"]
    alice = ("--identity", str(tmp_path / "alice"))
    assert told("verify", *alice, repo=tmp_path / "sealed")["messages"] == COUNT
    assert told("verify", repo=tmp_path / "open")["messages"] == COUNT

    configure("sealed", "late", sealed=sealed, late=sealed)
    said = run("backup", "--label", "b", repo="", url=source).stdout
    assert "repository late still misses a:" in said
    assert "[key.none]" in said
    copied = told("copy", "--from", "sealed", "--to", "late", *alice, repo="")["targets"][0]
    assert (copied["copied"], copied["present"]) == (["a"], ["b"])
    assert told("verify", *alice, repo=tmp_path / "late")["backups"] == 2
