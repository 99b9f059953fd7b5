"""No room, and no permission to write: in the repository and at the servers. Finished backups stay good, sources as they were."""

from __future__ import annotations

import contextlib
from pathlib import Path

from jetkeep.sandbox import Sandbox
from tests.backing_up import fill, run, source_facts, told, tree, whole_backups
from tests.conftest import StartServer
from tests.mounts import make_read_only, small_disk
from tests.publisher import Publisher
from tests.restoring import connected


async def test_a_backup_without_room_commits_nothing_and_harms_nothing(server: Sandbox, tmp_path: Path) -> None:
    await fill(server.url, "SMALL", 1)
    with small_disk(tmp_path / "disk", "8m") as disk:
        repo = disk / "repo"
        run("backup", "-q", "--label", "first", repo=repo, url=server.url)
        await fill(server.url, "BIG", 12)
        async with connected(server) as js:
            before = await source_facts(js)
        done = run("backup", "BIG", "-q", "--label", "second", "--json", repo=repo, url=server.url, check=13)
        error = told(done)["error"]
        assert error["code"] == "store.full"
        assert "finished backups are untouched" in error["means"]
        assert set(await whole_backups(repo)) == {"first"}
        assert not [one for one in tree(repo) if one.endswith(".partial") or "/leases/" in one]
        async with connected(server) as js:
            assert await source_facts(js) == before
        # What is small enough still goes.
        done = run("backup", "-q", "--label", "third", "--json", repo=repo, url=server.url, check=3)
        streams = {one["stream"]: one["status"] for one in told(done)["streams"]}
        assert streams == {"BIG": "failed", "SMALL": "complete"}
        backups = await whole_backups(repo)
        assert {label: one.status for label, one in backups.items()} == {"first": "complete", "third": "partial"}


async def test_without_any_room_everything_can_still_be_read(server: Sandbox, tmp_path: Path) -> None:
    await fill(server.url, "S", 1)
    with small_disk(tmp_path / "disk", "4m") as disk:
        repo = disk / "repo"
        run("backup", "-q", "--label", "first", repo=repo, url=server.url)
        with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(4096))
        assert "store.full" in run("backup", "-q", repo=repo, url=server.url, check=13).stderr
        await _everything_can_be_read(repo, server, tmp_path)


async def test_expire_makes_room_where_there_is_none_at_all(server: Sandbox, tmp_path: Path) -> None:
    """Its lease needs room, too: an empty file is one, and says enough."""
    await fill(server.url, "S", 1)
    with small_disk(tmp_path / "disk", "6m") as disk:
        repo = disk / "repo"
        for label in ("first", "second", "third"):
            run("backup", "-q", "--label", label, repo=repo, url=server.url)
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        assert "store.full" in run("backup", "-q", repo=repo, url=server.url, check=13).stderr
        run("expire", "--keep-last", "1", repo=repo)
        assert set(await whole_backups(repo)) == {"third"}
        assert not tree(repo / "leases")


async def test_a_read_only_repository_is_read_and_nothing_else(server: Sandbox, tmp_path: Path) -> None:
    await fill(server.url, "S", 1)
    with small_disk(tmp_path / "disk") as disk:
        repo = disk / "repo"
        run("backup", "-q", "--label", "first", repo=repo, url=server.url)
        make_read_only(disk)
        async with connected(server) as js:
            before = await source_facts(js)
        for words in (["backup"], ["expire", "--keep-last", "1"], ["pin", "first"]):
            done = run(*words, "--json", repo=repo, url=server.url, check=12)
            assert told(done)["error"]["code"] == "store.denied"
            assert "Read-only" in told(done)["error"]["what"]
        async with connected(server) as js:
            assert await source_facts(js) == before
        await _everything_can_be_read(repo, server, tmp_path)
    done = run("backup", "--json", repo=Path("/proc/repo"), url=server.url, check=None)
    assert told(done)["error"]["exit_status"] in (12, 13)


async def _everything_can_be_read(repo: Path, server: Sandbox, tmp_path: Path) -> None:
    assert "first" in run("info", repo=repo).stdout
    run("verify", "-q", repo=repo)
    run("expire", "--keep-last", "1", "--dry-run", repo=repo)
    assert run("cat", "S", "--limit", "1", repo=repo).stdout
    run("export", "S", str(tmp_path / "out"), "-q", repo=repo)
    async with Publisher(server.url) as publisher:
        await publisher.ask("$JS.API.STREAM.DELETE.S")
    run("restore", "-q", repo=repo, url=server.url)


async def test_a_server_without_room_takes_no_half_restore(start_server: StartServer, tmp_path: Path) -> None:
    source = await start_server()
    await fill(source.url, "SMALL", 1)
    await fill(source.url, "BIG", 16)
    run("backup", "-q", repo=tmp_path / "repo", url=source.url)
    with small_disk(tmp_path / "disk", "8m") as disk:
        target = await start_server(store_dir=disk / "store")
        done = run("restore", "--json", repo=tmp_path / "repo", url=target.url, check=None)
        assert done.returncode in (3, 20, 40), done.stdout
        document = told(done)
        left = {one["stream"] for one in document.get("streams", []) if one["status"] == "restored"}
        assert "BIG" not in left
        async with connected(target) as js:
            assert {one["config"]["name"] for one in (await js.stream_list()).infos} == left
        await target.stop()
    run("verify", "-q", repo=tmp_path / "repo")
