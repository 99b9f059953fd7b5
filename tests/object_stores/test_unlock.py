"""Who holds what, and how it is taken away: on a directory and on a real S3 server."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jetkeep.errors import LockedError
from jetkeep.repository import encoding, layout
from jetkeep.repository.address import store_at
from jetkeep.repository.documents import LeaseDocument, Owner
from jetkeep.repository.leases import LIFETIME_NS, lease
from tests.backing_up import run, told
from tests.object_stores.seaweed import Bucket
from tests.repositories import Stream, new_repository, orders, take

HOLD = """
import asyncio, sys, time
from jetkeep.repository.address import store_at
from jetkeep.repository.leases import lease
async def hold():
    async with lease(store_at(sys.argv[1]), "expire", now_ns=time.time_ns):
        print("held", flush=True)
        await asyncio.sleep(1000)
asyncio.run(hold())
"""
STREAMS = {"A": Stream([orders(1, 5)])}


def holder(url: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def leases(repo: str | Path, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = told(run("unlock", "--json", *words, repo=repo))["leases"]
    return found


async def made(url: str) -> None:
    await take(await new_repository(store_at(url)), "one", STREAMS)


@pytest.fixture(params=["directory", "bucket"])
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = str(tmp_path / "r") if request.param == "directory" else request.getfixturevalue("bucket").url
    asyncio.run(made(url))
    return str(url)


def test_who_is_at_work_is_shown_and_left_alone_and_who_died_is_cleaned_up_after(repo: str) -> None:
    process = holder(repo)
    try:
        (one,) = leases(repo)
        assert (one["live"], one["purpose"], one["owner"]["pid"]) == (True, "expire", process.pid)
        assert not one["removed"]
        assert one["renewed_seconds_ago"] < 60
        assert one["nonce"] in run("unlock", repo=repo).stdout
    finally:
        process.kill()
        process.communicate()
    (one,) = leases(repo, "--dry-run")
    assert (one["live"], one["removed"]) == (False, False)
    (one,) = leases(repo)
    assert (one["live"], one["removed"]) == (False, True)
    assert "nobody is at work" in run("unlock", repo=repo).stdout


def test_a_lease_that_is_taken_away_by_force_is_gone_and_its_owner_commits_nothing(repo: str) -> None:
    async def work() -> None:
        repository = await new_repository(store_at(repo))
        template = await take(repository, "two", STREAMS)
        template.label = "three"
        async with lease(repository.store, "backup", now_ns=time.time_ns) as held:
            await asyncio.to_thread(run, "unlock", "--force", held.document.nonce, repo=repo)
            with pytest.raises(LockedError) as taken:
                await repository.commit(template, held)
            assert taken.value.code == "repository.lease-taken"
        assert [one.label for one in (await repository.backups())[0]] == ["one", "two"]

    asyncio.run(work())
    assert leases(repo) == []


def test_a_nonce_that_nobody_has_is_refused_and_nothing_taken_away(repo: str) -> None:
    process = holder(repo)
    try:
        done = run("unlock", "--force", "0123456789abcdef", "--json", repo=repo, check=2)
        assert told(done)["error"]["code"] == "usage.no-such-lease"
        assert len(leases(repo)) == 1
    finally:
        process.kill()
        process.communicate()


def test_the_lease_of_another_machine_is_dead_when_it_was_not_renewed_for_five_minutes(tmp_path: Path) -> None:
    asyncio.run(made(str(tmp_path)))

    document = LeaseDocument(
        purpose="backup",
        nonce="0123456789abcdef",
        owner=Owner(host="elsewhere", pid=1, process=""),
        acquired_at="2026-01-01T00:00:00Z",
        # Its owner's clock was far ahead: that counts for nothing.
        expires_at="2099-01-01T00:00:00Z",
        labels=[],
    )
    path = tmp_path / layout.lease_key("backup", document.nonce)
    path.write_bytes(encoding.seal(document))
    os.utime(path, ns=(time.time_ns() - LIFETIME_NS // 2,) * 2)
    (one,) = leases(tmp_path)
    assert (one["live"], one["owner"]["host"]) == (True, "elsewhere")
    os.utime(path, ns=(time.time_ns() - LIFETIME_NS - 10**9,) * 2)
    (one,) = leases(tmp_path)
    assert (one["live"], one["removed"]) == (False, True)


def test_a_reader_sees_who_is_at_work_and_takes_nothing_away(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(made(bucket.url))
    process = holder(bucket.url)
    process.kill()
    process.communicate()
    for name, value in bucket.server.environment("reader").items():
        monkeypatch.setenv(name, value)
    document = json.loads(run("unlock", "--json", repo=bucket.url).stdout)
    assert [(one["live"], one["removed"]) for one in document["leases"]] == [(False, False)]
    assert "refused" in document["not_removed"]
    assert "harm nobody" in run("unlock", repo=bucket.url).stdout
