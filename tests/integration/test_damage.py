"""One damaged object of each kind, and every command that reads: found by name, refused with 30, nothing half made."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jetkeep.repository import encoding, layout
from jetkeep.sandbox import Sandbox
from tests.backing_up import run, told
from tests.publisher import Publisher
from tests.repositories import files
from tests.restoring import connected, consumer

#: Which files an object's kind has, and the statuses of commands that need it.
KINDS = {
    "repository": "jetkeep.json",
    "backup": "backups/damaged.json",
    "manifest": "sources/*/ORDERS/*/manifests/damaged-*.json.zst",
    "segment": "sources/*/ORDERS/*/segments/*.parquet",
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


HARMS: dict[str, Callable[[Path], None]] = {"flipped": flip, "cut": cut, "empty": empty, "gone": remove}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two backups of two streams, which share what they hold of OTHER."""
    repo = tmp_path_factory.mktemp("sound") / "repo"

    async def fill() -> None:
        async with Sandbox() as server, Publisher(server.url) as publisher:
            await publisher.create("ORDERS")
            await publisher.create("OTHER")
            await publisher.store_all((f"ORDERS.{at}", b"order %d" % at, b"") for at in range(50))
            async with connected(server) as js:
                await consumer(js, "ORDERS", "reader")
            run("backup", "-q", "--label", "good", repo=repo, url=server.url)
            await publisher.ask("$JS.API.STREAM.PURGE.ORDERS", {"seq": 2})
            await publisher.store("ORDERS.more", b"", b"")
            run("backup", "-q", "--label", "damaged", repo=repo, url=server.url)

    asyncio.run(fill())
    return repo


def harmed(sound: Path, repo: Path, kind: str, harm: str) -> Path:
    """A copy in which one object that backup `damaged` needs is harmed, and `good` does not; the object's path."""
    shutil.copytree(sound, repo)
    paths = sorted(repo.glob(KINDS[kind]))
    path = paths[-1]  # of two segments, the one that begins later
    HARMS[harm](path)
    return path


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("kind", KINDS)
def test_verify_names_the_object_and_the_backups_that_it_touches(
    sound: Path, tmp_path: Path, kind: str, harm: str
) -> None:
    path = harmed(sound, tmp_path / "r", kind, harm)
    if kind == "repository":
        status = 10 if harm == "gone" else 30
        done = run("verify", "--json", repo=tmp_path / "r", check=status)
        assert path.name in done.stdout or harm == "gone"
        return
    if (kind, harm) == ("backup", "gone"):
        # What is not named does not exist: verify can tell only of what is left.
        document = told(run("verify", "--json", repo=tmp_path / "r", check=0))
        assert [one["kind"] for one in document["findings"]] == ["unnamed"]
        return
    document = told(run("verify", "--json", repo=tmp_path / "r", check=30))
    damage = [one for one in document["findings"] if one["severity"] == "damage"]
    assert len(damage) == 1
    assert damage[0]["key"] == path.relative_to(tmp_path / "r").as_posix()
    assert damage[0]["backups"] == ["damaged"]
    assert damage[0]["kind"] in {"flipped": ("damaged",), "gone": ("missing",)}.get(harm, ("truncated", "damaged"))
    if harm != "flipped":
        return
    human = run("verify", repo=tmp_path / "r", check=30)
    assert "DAMAGED" in human.stdout
    assert path.name in human.stdout
    run("verify", "good", repo=tmp_path / "r")


@pytest.mark.parametrize("harm", ["flipped", "gone"])
@pytest.mark.parametrize("kind", KINDS)
def test_commands_that_read_it_refuse_and_leave_nothing_half_made(
    sound: Path, tmp_path: Path, server: Sandbox, kind: str, harm: str
) -> None:
    repo = tmp_path / "r"
    harmed(sound, repo, kind, harm)
    status = {("repository", "gone"): 10, ("backup", "gone"): 2}.get((kind, harm), 30)
    out = tmp_path / "out"
    for words in (
        ["cat", "ORDERS", "--backup", "damaged"],
        ["export", "ORDERS", str(out), "--backup", "damaged"],
        ["export", "ORDERS", str(out), "--tar", "--backup", "damaged"],
        ["restore", "ORDERS", "--backup", "damaged"],
    ):
        done = run(*words, "--json", repo=repo, url=server.url, check=status)
        if words[0] == "restore" and kind == "segment":
            assert [one["status"] for one in told(done)["streams"]] == ["failed"]
        else:
            assert told(done)["error"]["exit_status"] == status
        assert not out.exists()
        assert not list(tmp_path.glob("*partial*"))
    assert asyncio.run(streams_at(server)) == set()
    if kind != "repository":
        run("export", "ORDERS", str(out), "--backup", "good", "-q", repo=repo)
        run("restore", "ORDERS", "--backup", "good", "-q", repo=repo, url=server.url)


async def streams_at(server: Sandbox) -> set[str]:
    async with connected(server) as js:
        return {one["config"]["name"] for one in (await js.stream_list()).infos}


@pytest.mark.parametrize("kind", ["backup", "manifest"])
def test_expire_deletes_nothing_while_it_does_not_know_what_is_needed(sound: Path, tmp_path: Path, kind: str) -> None:
    repo = tmp_path / "r"
    harmed(sound, repo, kind, "flipped")
    before = files(repo)
    done = run("expire", "--keep-last", "1", repo=repo, check=30)
    assert "nothing was expired" in done.stderr
    after = files(repo)
    assert {key: after[key] for key in before} == before
    assert all(key.startswith(layout.RUNS) for key in set(after) - set(before))  # that it failed is on record


@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
def test_a_backup_heals_nothing_and_is_not_hindered_by_damage(
    sound: Path, tmp_path: Path, server: Sandbox, harm: str
) -> None:
    """Also where its own segments would have the damaged one's name."""
    repo = tmp_path / "r"
    path = harmed(sound, repo, "segment", harm)
    run("restore", "--backup", "good", "-q", repo=sound, url=server.url)

    async def as_damaged() -> None:
        async with Publisher(server.url) as publisher:
            await publisher.ask("$JS.API.STREAM.PURGE.ORDERS", {"seq": 2})
            await publisher.store("ORDERS.more", b"", b"")

    asyncio.run(as_damaged())
    run("backup", "-q", "--label", "new", repo=repo, url=server.url)
    run("verify", "new", repo=repo)
    document = told(run("verify", "--json", repo=repo, check=30 if harm != "gone" else None))
    damage = {one["key"] for one in document["findings"] if one["severity"] == "damage"}
    assert damage <= {path.relative_to(repo).as_posix()}


def test_info_shows_what_is_damaged_and_the_rest(sound: Path, tmp_path: Path) -> None:
    repo = tmp_path / "r"
    harmed(sound, repo, "backup", "flipped")
    document = told(run("info", "--json", repo=repo, check=None))
    assert [one["label"] for one in document["backups"]] == ["good"]
    assert [one["key"] for one in document["damaged"]] == ["backups/damaged.json"]


def test_what_a_newer_version_wrote_is_refused_by_name(sound: Path, tmp_path: Path) -> None:
    repo = tmp_path / "r"
    shutil.copytree(sound, repo)
    path = repo / "backups" / "damaged.json"
    body = json.loads(path.read_bytes())["body"]
    path.write_bytes(encoding.seal({**body, "features": ["woven"]}))
    done = run("cat", "ORDERS", "--backup", "damaged", repo=repo, check=30)
    assert "woven" in done.stderr
    assert "data.format" in done.stderr
