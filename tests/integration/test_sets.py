"""Many accounts and many machines: real servers, real accounts, every shard a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from jetkeep.capture.sharding import shard_of
from jetkeep.config import connection_settings
from jetkeep.jetstream import connect
from jetkeep.model import JsonDict
from jetkeep.sandbox.server import Sandbox
from tests.backing_up import fill, run, start, told, tree, wait_for
from tests.conftest import StartServer
from tests.publisher import Publisher

ACCOUNTS = {
    "accounts": {
        "EAST": {"jetstream": "enabled", "users": [{"user": "east", "password": "e"}]},
        "WEST": {"jetstream": "enabled", "users": [{"user": "west", "password": "w"}]},
    }
}


async def publish(url: str, user: str, password: str, *streams: str, count: int = 30) -> None:
    async with Publisher(url, user, password) as publisher:
        for name in streams:
            await publisher.create(name, storage="file")
            await publisher.store_all(
                (f"{name}.{one % 5}", b"%s %d" % (name.encode(), one), b"") for one in range(count)
            )


@pytest.fixture
def accounts(start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A server with two accounts that have a stream of the same name, and a configuration that knows both."""

    async def prepared() -> Sandbox:
        server = await start_server(config=ACCOUNTS)
        await publish(server.url, "east", "e", "ORDERS", "EAST_ONLY")
        await publish(server.url, "west", "w", "ORDERS", "WEST_ONLY", count=50)
        return server

    server = asyncio.run(prepared())
    (tmp_path / "server.conf").write_text("port: 4222\n")
    monkeypatch.setenv("EAST_PASSWORD", "e")
    monkeypatch.setenv("WEST_PASSWORD", "w")
    configure(tmp_path, server.url, server.url, monkeypatch)
    return server


def configure(tmp_path: Path, east: str, west: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jetkeep.toml").write_text(
        f"""
        [repositories.local]
        url = "{tmp_path}/repo"
        [sources.east]
        server = "{east}"
        user = "east"
        password = "env://EAST_PASSWORD"
        timeout = "2s"
        [sources.west]
        server = "{west}"
        user = "west"
        password = "env://WEST_PASSWORD"
        timeout = "2s"
        streams = ["*ORDERS", "WEST_*"]
        """
    )
    monkeypatch.setenv("JETKEEP_CONFIG", str(tmp_path / "jetkeep.toml"))
    monkeypatch.delenv("JETKEEP_REPO", raising=False)


def ask(*words: str, check: int = 0, url: str = "") -> JsonDict:
    """A command's document."""
    return told(run(*words, "--json", repo="", url=url, check=check))


def parts_of(document: JsonDict) -> dict[str, str]:
    return {one["part"]: one["status"] for one in document["parts"]}


async def counts(url: str) -> dict[str, int]:
    async with connect(connection_settings({"server": url, "no_context": True}, {})) as js:
        return {one["config"]["name"]: one["state"]["messages"] for one in (await js.stream_list()).infos}


def test_all_accounts_are_one_set_and_come_back_by_source(
    accounts: Sandbox, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A variable that is meant for one account does not make every source that account.
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    done = ask("backup", "--all-sources", "--label", "night")
    assert (done["label"], done["status"], done["lost"]) == ("night", "complete", [])
    assert parts_of(done) == {"east": "complete", "west": "complete"}
    info = ask("info")
    assert [(one["label"], one["set"]["part"]) for one in info["backups"]] == [
        ("night.east", "east"),
        ("night.west", "west"),
    ]
    assert [(one["label"], one["status"]) for one in info["sets"]] == [("night", "complete")]
    target = asyncio.run(start_server())
    refused = run("restore", repo="", url=target.url, check=2)
    assert "several sources" in refused.stderr
    assert "--source" in refused.stderr
    ask("restore", "--source", "west", url=target.url)
    assert asyncio.run(counts(target.url)) == {"ORDERS": 50, "WEST_ONLY": 50}
    ask("restore", "EAST_ONLY", "--backup", "night", url=target.url)
    assert asyncio.run(counts(target.url))["EAST_ONLY"] == 30
    assert ask("verify", "night")["backups"] == 2
    # Nothing else gets the set's label.
    taken = run("backup", "--source", "west", "--label", "night", repo="", check=2)
    assert "label-taken" in taken.stderr
    # Again under the same label: nothing is read twice.
    again = ask("backup", "--all-sources", "--label", "night")
    assert [one["status"] for one in again["taken"]] == ["there", "there"]


def test_every_account_comes_back_by_one_command_and_nothing_is_changed_while_one_cannot(
    accounts: Sandbox, start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("backup", "--all-sources", "--label", "night")
    east, west = asyncio.run(start_server()), asyncio.run(start_server())
    configure(tmp_path, east.url, "nats://127.0.0.1:1", monkeypatch)
    assert ask("restore", "--all-sources", check=20)["error"]["code"] == "nats.unreachable"
    configure(tmp_path, east.url, west.url, monkeypatch)
    asyncio.run(fill(west.url, "WEST_ONLY", 1))
    plans = ask("restore", "--all-sources", "--dry-run", check=40)["accounts"]
    assert [(one["source"], len(one["steps"])) for one in plans] == [("east", 2), ("west", 2)]
    assert ask("restore", "--all-sources", check=40)["error"]["code"] == "restore.exists"
    assert asyncio.run(counts(east.url)) == {}
    done = ask("restore", "--all-sources", "--if-exists", "skip")
    assert (done["label"], [one["status"] for one in done["accounts"]]) == ("night", ["complete", "complete"])
    assert asyncio.run(counts(east.url)) == {"ORDERS": 30, "EAST_ONLY": 30}
    assert asyncio.run(counts(west.url)) == {"ORDERS": 50, "WEST_ONLY": 4}
    said = run("restore", "--all-sources", "--if-exists", "skip", repo="").stdout
    assert "night: 2 of 2 accounts restored" in said
    (tmp_path / "jetkeep.toml").write_text(
        (tmp_path / "jetkeep.toml").read_text().replace("[sources.west]", "[sources.other]")
    )
    assert ask("restore", "--all-sources", check=2)["error"]["code"] == "usage.all-sources"
    assert ask("restore", "ORDERS", "--all-sources", check=2)["error"]["code"] == "usage.all-sources"


def test_an_account_that_fails_leaves_the_others_and_is_taken_again_alone(
    accounts: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, accounts.url, "nats://127.0.0.1:1", monkeypatch)
    done = ask("backup", "--all-sources", "--label", "night", check=3)
    assert (done["status"], done["lost"]) == ("incomplete", ["west"])
    assert [one["status"] for one in done["taken"]] == ["complete", "failed"]
    assert done["taken"][1]["error"]["exit_status"] == 20
    shown = run("info", repo="").stdout
    assert "set night: incomplete, 1 of 2 parts" in shown
    assert "LOST west" in shown
    assert ask("info", "night")["lost"] == ["west"]
    assert ask("verify")["sound"]
    assert [one["kind"] for one in ask("verify")["findings"]] == ["lost-part"]
    assert "not complete: west" in run("restore", "--backup", "night", repo="", url=accounts.url, check=2).stderr
    assert "not complete: west" in run("drill", repo="", check=2).stderr
    # What is there can be had by its source.
    login = ("--server", accounts.url, "--user", "west", "--password", "w")
    plan = ask("restore", "EAST_ONLY", "--source", "east", "--dry-run", *login)
    assert (plan["backup"], len(plan["steps"])) == ("night", 1)
    probes = ask("check", "--server", accounts.url, "--user", "east", "--password", "e")["probes"]
    assert [one["what"] for one in probes if one["name"] == "newest set"] == ["night lacks west"]
    configure(tmp_path, "nats://127.0.0.1:1", accounts.url, monkeypatch)
    done = ask("backup", "--all-sources", "--label", "night")
    assert [one["status"] for one in done["taken"]] == ["there", "complete"]
    assert done["status"] == "complete"
    assert ask("verify")["findings"] == []


def test_a_set_whose_accounts_all_fail_is_the_first_ones_error(
    accounts: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, "nats://127.0.0.1:1", "nats://127.0.0.1:1", monkeypatch)
    assert ask("backup", "--all-sources", check=20)["error"]["exit_status"] == 20
    assert ask("info")["backups"] == []


def test_a_drill_of_a_set_rehearses_every_part(accounts: Sandbox) -> None:
    ask("backup", "--all-sources", "--label", "night")
    done = ask("drill", "--sample", "3")
    assert (done["label"], done["status"]) == ("night", 0)
    assert [one["backup"]["label"] for one in done["drills"]] == ["night.east", "night.west"]
    assert {one["verdict"] for one in done["drills"]} == {"SUCCESSFUL"}


STREAMS = [f"S{number}" for number in range(8)]


async def eight_streams(server: Sandbox) -> None:
    for name in STREAMS:
        await fill(server.url, name, 12)


def test_shards_run_side_by_side_and_one_that_was_killed_runs_again_alone(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JETKEEP_CONFIG", raising=False)
    server, target = asyncio.run(start_server()), asyncio.run(start_server())
    asyncio.run(eight_streams(server))
    repo = tmp_path / "repo"

    def shard(index: int, *more: str) -> tuple[str, ...]:
        return ("backup", "--shard", f"{index}/3", "--label", "night", "--json", *more)

    processes = [start(*shard(index), repo=repo, url=server.url) for index in range(3)]
    # Shard 2 is killed when it has stored something.
    mine = [name for name in STREAMS if shard_of(name, 3) == 2]
    assert mine
    wait_for(lambda: any("parquet" in one and f"/{mine[0]}/" in one for one in tree(repo)), processes[2])
    processes[2].send_signal(signal.SIGKILL)
    assert [one.wait(60) for one in processes] == [0, 0, -signal.SIGKILL]
    for one in processes:
        one.communicate()
    info = told(run("info", "--json", repo=repo))
    (night,) = info["sets"]
    assert (night["status"], night["lost"]) == ("incomplete", ["nats.2of3"])
    assert "nats.2of3" in run("restore", repo=repo, url=target.url, check=2).stderr
    assert asyncio.run(counts(target.url)) == {}
    # The lost shard runs again alone, as an Indexed Job would start it.
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    again = told(run("backup", "--shards", "3", "--label", "night", "--json", repo=repo, url=server.url))
    assert (again["status"], again["lost"]) == ("complete", [])
    run("verify", repo=repo)
    restored = told(run("restore", "--json", repo=repo, url=target.url))
    assert restored["backup"] == "night"
    assert asyncio.run(counts(target.url)) == dict.fromkeys(STREAMS, 48)
    # A pod that is started once more finds its part there.
    more = told(run(*shard(1), repo=repo, url=server.url))
    assert [one["status"] for one in more["taken"]] == ["there"]
    # Another number of shards is another set.
    other = run("backup", "--shard", "0/4", "--label", "night", repo=repo, url=server.url, check=2)
    assert "nats.0of3" in other.stderr


def test_a_set_is_pinned_and_expires_as_a_whole(accounts: Sandbox) -> None:
    for label in ("one", "two", "three"):
        ask("backup", "--all-sources", "--label", label)
    ask("pin", "one")
    (done,) = ask("expire", "--keep-last", "1")["repositories"]
    assert sorted(done["expired"]) == ["two.east", "two.west"]
    assert [one["label"] for one in ask("info")["sets"]] == ["one", "three"]
    ask("pin", "one", "--remove")
    (done,) = ask("expire", "--keep-last", "1")["repositories"]
    assert sorted(done["expired"]) == ["one.east", "one.west"]
    run("verify", repo="")


def test_files_go_only_where_nobody_reads_them_and_come_back(accounts: Sandbox, tmp_path: Path) -> None:
    toml = tmp_path / "jetkeep.toml"
    toml.write_text(toml.read_text() + f'\n        include-files = ["{tmp_path}/server.conf"]\n')
    refused = run("backup", "--all-sources", "--label", "night", repo="", check=2)
    assert "not encrypted" in refused.stderr
    assert not (tmp_path / "repo").exists()  # or the next run could only say that it is not encrypted
    run("backup", "--source", "west", "--include-files", str(toml), "--repo", str(tmp_path / "repo"), repo="", check=2)
    assert not (tmp_path / "repo").exists()
    done = ask("backup", "--all-sources", "--label", "night", "--force-unsealed")
    assert [one["backup"]["files"] and one["backup"]["files"]["count"] for one in done["taken"]] == [None, 1]
    out = tmp_path / "out"
    said = ask("extract", "night", str(out))
    (name,) = said["files"]
    assert name == f"west{tmp_path}/server.conf"
    assert (out / name).read_text() == "port: 4222\n"
    assert "files" in run("info", repo="").stdout
    assert ask("verify")["sound"]
    # A file that is gone costs the files, and is told.
    (tmp_path / "server.conf").unlink()
    lost = ask("backup", "--all-sources", "--label", "later", "--force-unsealed", check=3)
    assert (lost["status"], parts_of(lost)) == ("partial", {"east": "complete", "west": "partial"})
    assert "server.conf" in json.dumps(lost["taken"][1]["backup"]["files"])
    (kept,) = ask("expire", "--keep-last", "5")["repositories"]
    assert kept["deleted_objects"] == 0
    archive = next((tmp_path / "repo").rglob("*.tar.zst"))
    archive.write_bytes(b"x")
    assert not ask("verify", check=30)["sound"]
    assert not (tmp_path / "more").exists()
    run("extract", "night", str(tmp_path / "more"), repo="", check=30)
    assert not (tmp_path / "more").exists()


def test_files_in_a_sealed_repository_are_for_who_has_the_identity(accounts: Sandbox, tmp_path: Path) -> None:
    sealed, clear = tmp_path / "sealed", tmp_path / "clear"
    secret = "-----BEGIN NATS USER JWT-----"
    (tmp_path / "user.creds").write_text(secret)
    words = [run("key", "new", str(tmp_path / name), repo="").stdout.strip() for name in ("mine", "stranger")]
    run("init", "--encrypt-to", words[0], repo=sealed)
    place = ("--include-files", str(tmp_path / "user.creds"), "--repo", str(sealed))
    done = ask("backup", "--source", "west", "--label", "night", *place)
    assert (done["status"], done["files"]["count"]) == ("complete", 1)
    stored = [path.read_bytes() for path in sealed.rglob("*") if path.is_file()]
    assert not any(secret.encode() in data or b"user.creds" in data for data in stored)
    # Who backs up cannot read them, nor can a stranger.
    out = str(tmp_path / "out")
    assert run("verify", repo=sealed).returncode == 0
    assert ask("extract", "night", out, "--repo", str(sealed), check=12)["error"]["exit_status"] == 12
    run("extract", "night", out, "--identity", str(tmp_path / "stranger"), repo=sealed, check=12)
    assert not Path(out).exists()
    run("extract", "night", out, "--identity", str(tmp_path / "mine"), repo=sealed)
    assert (Path(out) / str(tmp_path / "user.creds").lstrip("/")).read_text() == secret
    # A copy takes them along, but not to where nothing is encrypted.
    run("init", repo=clear)
    identity = ("--identity", str(tmp_path / "mine"))
    refused = run("copy", "--from", str(sealed), "--to", str(clear), *identity, repo="", check=None)
    assert refused.returncode != 0
    assert "not encrypted" in refused.stdout + refused.stderr
    assert told(run("info", "--json", repo=clear))["backups"] == []
    run("init", "--encrypt-to", words[1], repo=tmp_path / "second")
    run("copy", "--from", str(sealed), "--to", str(tmp_path / "second"), *identity, repo="")
    run("extract", "latest", f"{out}2", "--identity", str(tmp_path / "stranger"), repo=tmp_path / "second")
    assert (Path(f"{out}2") / str(tmp_path / "user.creds").lstrip("/")).read_text() == secret


def test_all_accounts_go_into_every_repository_with_their_files(
    accounts: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = tmp_path / "jetkeep.toml"
    extra = f'\n[repositories.offsite]\nurl = "{tmp_path}/offsite"\nkeep = {{ last = 1 }}\n'
    toml.write_text(toml.read_text() + f'include-files = ["{tmp_path}/server.conf"]\n' + extra)
    # The second repository misses the first set, and is brought all of it with the next one.
    (tmp_path / "offsite").write_text("in the way")
    ask("backup", "--all-sources", "--label", "one", "--force-unsealed")
    (tmp_path / "offsite").unlink()
    ask("backup", "--all-sources", "--label", "two", "--force-unsealed")
    sets = ask("info", "--repo", "offsite")["sets"]
    assert {one["label"]: one["status"] for one in sets}["two"] == "complete"
    assert all(one["status"] == "complete" for one in sets)
    ask("extract", "two", str(tmp_path / "out"), "--repo", "offsite")
    assert ask("verify", "--repo", "offsite")["findings"] == []
