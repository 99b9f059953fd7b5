"""One backup into several repositories: what each has, what one that fails costs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from jetkeep.model import JsonDict
from jetkeep.repository.address import store_at
from jetkeep.repository.repository import Repository
from tests.backing_up import run
from tests.conftest import StartServer
from tests.object_stores.seaweed import Bucket
from tests.publisher import Publisher
from tests.repositories import files, read_back


async def publish(url: str) -> None:
    async with Publisher(url) as publisher:
        await publisher.create("ORDERS", storage="file")
        await publisher.create("EMPTY", storage="file")
        await publisher.store_all((f"ORDERS.{at % 5}", b"order %d" % at, b"") for at in range(300))


@pytest.fixture
def source(start_server: StartServer) -> str:
    """A server with two streams."""

    async def prepared() -> str:
        server = await start_server()
        await publish(server.url)
        return server.url

    return asyncio.run(prepared())


def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offsite: str, **settings: str) -> None:
    """A configuration with a local repository and another one."""
    lines = [f"[repositories.local]\nurl = '{tmp_path}/local'\n[repositories.offsite]\nurl = '{offsite}'"]
    lines += [f"{key} = {value}" for key, value in settings.items()]
    (tmp_path / "jetkeep.toml").write_text("\n".join(lines))
    monkeypatch.setenv("JETKEEP_CONFIG", str(tmp_path / "jetkeep.toml"))
    monkeypatch.delenv("JETKEEP_REPO", raising=False)


def back_up(url: str, *words: str, check: int = 0) -> JsonDict:
    """`jetkeep backup` into all that the configuration names."""
    document: JsonDict = json.loads(run("backup", "--json", *words, repo="", url=url, check=check).stdout)
    return document


def outcome(report: JsonDict) -> dict[str, str]:
    return {one["name"]: one["error"]["code"] if "error" in one else one["status"] for one in report["repositories"]}


def contents(url: str, label: str) -> tuple[str, list[object]]:
    """A backup's run and the messages of its stream."""

    async def read() -> tuple[str, list[object]]:
        repository = await Repository.open(store_at(url))
        backup = await repository.read_backup(label)
        return backup.run, list(await read_back(repository, backup, "ORDERS"))

    return asyncio.run(read())


def test_both_repositories_have_the_same_backup(
    source: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(tmp_path, monkeypatch, bucket.url)
    report = back_up(source)
    assert outcome(report) == {"local": "committed", "offsite": "committed"}
    local, offsite = (contents(at, report["label"]) for at in (f"{tmp_path}/local", bucket.url))
    assert local == offsite
    assert local[0]
    assert len(local[1]) == 300
    assert json.loads(run("verify", "--json", "--repo", "offsite", repo="").stdout)["sound"]


@pytest.mark.parametrize(("required", "status"), [("false", 0), ("true", 3)])
def test_without_credentials_for_the_second_the_first_has_the_backup(
    source: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, required: str, status: int
) -> None:
    configured(tmp_path, monkeypatch, bucket.url, required=required)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    report = back_up(source, check=status)
    assert outcome(report) == {"local": "committed", "offsite": "store.no-credentials"}
    assert len(contents(f"{tmp_path}/local", report["label"])[1]) == 300
    told = run("backup", repo="", url=source, check=status).stdout
    assert told.count("offsite") == 1
    assert "does NOT have this backup" in told


def test_a_second_store_that_is_not_there_costs_nothing_but_itself(
    source: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(tmp_path, monkeypatch, bucket.url, endpoint="'http://127.0.0.1:9'")
    assert outcome(back_up(source)) == {"local": "committed", "offsite": "store.unreachable"}


def test_a_first_repository_that_fails_leaves_the_backup_in_the_second(
    source: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(tmp_path, monkeypatch, bucket.url)
    (tmp_path / "local").write_text("a file, and no directory")
    report = back_up(source, check=3)
    assert outcome(report)["offsite"] == "committed"
    assert outcome(report)["local"] != "committed"
    assert len(contents(bucket.url, report["label"])[1]) == 300


def test_when_none_takes_it_the_first_ones_error_is_told(
    source: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(tmp_path, monkeypatch, bucket.url)
    (tmp_path / "local").write_text("a file, and no directory")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    error = back_up(source, check=13)["error"]
    assert "local" in error["what"]


def test_a_label_that_one_of_them_has_is_not_given_again(
    source: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(tmp_path, monkeypatch, bucket.url)
    run("backup", "--label", "monday", repo=bucket.url, url=source)
    report = back_up(source, "--label", "monday")
    assert outcome(report) == {"local": "committed", "offsite": "usage.label-taken"}


def state(*words: str) -> JsonDict:
    """`jetkeep info` of the configuration's first repository: the state of the other."""
    other: JsonDict = json.loads(run("info", "--json", *words, repo="").stdout)["others"][0]
    return other


def labels(url: str) -> list[str]:
    """The labels of a repository's backups."""
    return [one["label"] for one in json.loads(run("info", "--json", repo=url).stdout)["backups"]]


def test_a_second_repository_that_comes_back_is_brought_what_it_missed(
    source: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(tmp_path, monkeypatch, bucket.url)
    key = bucket.server.keys().access_key
    for label in ("one", "two", "three"):
        if label == "one":
            back_up(source, "--label", label)
            assert state()["behind"] == []
            monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        else:
            back_up(source, "--label", label)
    assert state()["error"]["code"] == "store.no-credentials"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    assert (state()["behind"], state()["newest"]) == (["two", "three"], "one")
    probes = json.loads(run("check", "--json", repo="", url=source).stdout)["probes"]
    (told,) = (one for one in probes if one["name"] == "repository offsite")
    assert told["what"].startswith("2 backups behind")
    assert state()["lag_seconds"] > 0
    report = back_up(source, "--label", "four")
    assert report["repositories"][1]["caught_up"] == ["two", "three"]
    assert labels(bucket.url) == ["one", "two", "three", "four"]
    assert (state()["behind"], state()["lag_seconds"]) == ([], 0)
    assert json.loads(run("verify", "--json", repo=bucket.url).stdout)["sound"]


def test_each_repository_keeps_what_its_own_rules_say_and_is_not_brought_it_again(
    source: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(tmp_path, monkeypatch, bucket.url, keep="{ last = 1 }")
    for label in ("one", "two", "three"):
        back_up(source, "--label", label)
    told = json.loads(run("expire", "--json", repo="").stdout)["repositories"]
    assert [one["url"] for one in told] == [bucket.url]
    assert (labels(f"{tmp_path}/local"), labels(bucket.url)) == (["one", "two", "three"], ["three"])
    assert back_up(source, "--label", "four")["repositories"][1]["caught_up"] == []
    assert labels(bucket.url) == ["three", "four"]


def test_copy_fills_what_is_missing_between_the_repositories_of_the_configuration(
    source: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("backup", "--label", "before", repo=tmp_path / "local", url=source)
    configured(tmp_path, monkeypatch, bucket.url)
    (target,) = json.loads(run("copy", "--json", repo="").stdout)["targets"]
    assert (target["copied"], target["failed"]) == (["before"], {})
    assert contents(f"{tmp_path}/local", "before") == contents(bucket.url, "before")
    monkeypatch.delenv("JETKEEP_CONFIG")
    back = json.loads(run("copy", "--json", "--from", bucket.url, "--to", str(tmp_path / "b"), repo="").stdout)
    assert back["targets"][0]["copied"] == ["before"]


@pytest.fixture
def two_copies(source: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A source whose backup is in a local directory, and encrypted in a bucket."""
    key = tmp_path / "identity"
    recipient = run("key", "new", str(key), repo="").stdout.strip()
    monkeypatch.setenv("JETKEEP_IDENTITY", str(key))
    configured(tmp_path, monkeypatch, bucket.url, **{"encrypt-to": f"['{recipient}']"})
    back_up(source, "--label", "one")
    return source


def without_runs(root: Path) -> dict[str, bytes]:
    """What a repository holds but the records of runs, of which each command leaves one more."""
    return {key: data for key, data in files(root).items() if not key.startswith("runs/")}


def flip_all(folder: Path, pattern: str) -> None:
    for path in folder.rglob(pattern):
        data = path.read_bytes()
        path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])


@pytest.mark.parametrize("what", ["*.parquet", "*.json.zst", "one.json", "jetkeep.json"])
def test_what_the_first_lost_is_restored_from_the_second_and_told(
    two_copies: str, tmp_path: Path, start_server: StartServer, what: str
) -> None:
    flip_all(tmp_path / "local", what)
    target = asyncio.run(start_server()).url
    done = run("restore", "ORDERS", "--json", repo="", url=target)
    (stream,) = json.loads(done.stdout)["streams"]
    assert (stream["status"], stream["messages"]) == ("restored", 300)
    assert "offsite" in done.stderr
    printed = run("cat", "ORDERS", "--seq", "17", "--json", repo="")
    assert len(json.loads(printed.stdout)["messages"]) == 1
    assert printed.stderr.count("notice=") >= 1
    # Whoever names a repository means that one.
    assert run("cat", "ORDERS", "--seq", "17", "--repo", "local", repo="", check=None).returncode == 30


@pytest.mark.parametrize("what", ["*.parquet", "*.json.zst", "one.json"])
def test_verify_says_where_a_damaged_object_is_sound_and_repair_brings_it_back(
    two_copies: str, tmp_path: Path, what: str
) -> None:
    before = without_runs(tmp_path / "local")
    flip_all(tmp_path / "local", what)
    assert "--repair brings it back" in run("verify", repo="", check=30).stdout
    report = json.loads(run("verify", "--repair", "--json", repo="").stdout)
    assert report["sound"]
    assert all(one["done"] for one in report["repairs"])
    assert without_runs(tmp_path / "local") == before


def test_a_damaged_object_in_the_bucket_is_sealed_again_from_the_local_copy(
    two_copies: str, bucket: Bucket, tmp_path: Path
) -> None:
    async def objects() -> dict[str, bytes]:
        store = store_at(bucket.url)
        return {
            info.key: await store.read(info.key, info.size)
            async for info in store.list("")
            if not info.key.startswith(("leases/", "runs/"))
        }

    async def harm(keys: list[str]) -> None:
        store = store_at(bucket.url)
        for at, key in enumerate(keys):
            await (store.delete(key) if at % 2 else store.replace(key, b"rotten"))

    before = asyncio.run(objects())
    segments = [key for key in before if key.endswith(".parquet.sealed")]
    manifests = [key for key in before if key.endswith(".zst.sealed")]
    for keys in (segments, manifests):
        assert keys
        asyncio.run(harm(keys))
        report = json.loads(run("verify", "--repair", "--repo", "offsite", "--json", repo="").stdout)
        assert {one["key"] for one in report["repairs"] if one["done"]} == set(keys)
        assert asyncio.run(objects()) == before


def test_repair_without_another_repository_says_what_is_needed(tmp_path: Path, source: str) -> None:
    run("backup", repo=tmp_path / "alone", url=source)
    refused = run("verify", "--repair", "--json", repo=tmp_path / "alone", check=2)
    assert json.loads(refused.stdout)["error"]["code"] == "usage.no-repo"
