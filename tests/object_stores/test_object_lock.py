"""Object lock on a real S3 server: what is finished cannot be destroyed, and expire says when it can go."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pyrage
import pytest

from jetkeep.errors import AccessDeniedError, UsageError
from jetkeep.expire import ExpireReport, expire
from jetkeep.repair import repair
from jetkeep.replicate import copy_backups
from jetkeep.repository import layout, locking
from jetkeep.repository.address import StoreOptions, store_at
from jetkeep.repository.leases import lease
from jetkeep.repository.local import LocalStore
from jetkeep.repository.locking import Lock, Retention
from jetkeep.repository.object_errors import explain
from jetkeep.repository.objects import ObjectStore
from jetkeep.repository.repository import Repository
from jetkeep.repository.store import RETAINED
from jetkeep.retention import Policy
from jetkeep.verify import verify
from tests.backing_up import run, told
from tests.conftest import StartServer
from tests.object_stores.roles import USERS, grant, grant_roles, statements
from tests.object_stores.seaweed import Seaweed
from tests.publisher import Publisher
from tests.repositories import Stream, new_repository, orders, take
from tests.restoring import quiet

DAY_NS = 24 * 3600 * 10**9
RUNS = (orders(1, 6), orders(7, 12))
STREAMS = {"ORDERS": Stream(list(RUNS))}
MORE = {"ORDERS": Stream([*RUNS, orders(13, 15)])}


@pytest.fixture
def locked(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a bucket of its own with object lock; AWS_* are its administrator's."""
    as_user(seaweed, monkeypatch, "admin")
    return f"s3://{seaweed.create_bucket(locked=True)}"


def as_user(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch, user: str) -> None:
    for name, value in seaweed.environment(user).items():
        monkeypatch.setenv(name, value)


def store(url: str, days: int | None = None, mode: Any = "governance") -> ObjectStore:
    found = store_at(url, StoreOptions(lock_mode=mode if days else None, lock_days=days))
    assert isinstance(found, ObjectStore)
    return found


async def listed(url: str, prefix: str = "") -> set[str]:
    return {info.key async for info in store(url).list(prefix)}


async def sound(url: str) -> set[str]:
    """The labels, once everything that they name was read and found good."""
    repository = await Repository.open(store(url))
    report = await verify(repository, emit=quiet)
    assert not [one for one in report.findings if one.severity == "damage"], report.findings
    return {one.label for one in (await repository.backups())[0]}


# What is written is locked, but for what is worth nothing a moment later.


@pytest.mark.parametrize("mode", ["governance", "compliance"])
async def test_everything_but_leases_is_locked_for_as_long_as_asked(seaweed: Seaweed, locked: str, mode: str) -> None:
    place = store(locked, 2, mode)
    repository = await new_repository(place)
    await take(repository, "one", STREAMS)
    keys = await listed(locked)
    assert len(keys) == 5  # the repository, two segments, a manifest, a backup
    for key in keys:
        kept = await place.retention(key)
        assert kept
        assert kept.mode == mode
        assert 2 * DAY_NS < kept.until_ns - time.time_ns() <= 3 * DAY_NS + 10**9
        answer = seaweed.request("HEAD", f"/{locked.removeprefix('s3://')}/{key}")
        version = answer.headers["x-amz-version-id"]
        path = f"/{locked.removeprefix('s3://')}/{key}?versionId={version}"
        assert seaweed.request("DELETE", path).status == 403
    async with lease(place, "backup", now_ns=time.time_ns) as held:
        assert await place.retention(held.key) is None
    assert await place.retention("backups/not-there.json") is None


async def test_without_a_lock_nothing_is_retained(seaweed: Seaweed, locked: str) -> None:
    place = store(locked)
    await take(await new_repository(place), "one", STREAMS)
    assert [await place.retention(key) for key in await listed(locked)] == [None] * 5


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_a_lock_is_refused_where_uploads_cannot_ask_for_it(scheme: str) -> None:
    with pytest.raises(UsageError, match="lock") as refused:
        store_at(f"{scheme}://bucket/prefix", StoreOptions(lock_mode="governance", lock_days=1))
    assert "rule" in refused.value.hint


def test_what_a_head_tells_is_read_and_nonsense_is_none() -> None:
    moment = "Tue, 24 Nov 2026 00:00:00 GMT"
    whole = {
        "x-amz-object-lock-mode": "COMPLIANCE",
        "x-amz-object-lock-retain-until-date": "2026-11-25T00:00:00Z",
        "last-modified": moment,
    }
    assert locking.retention_of(whole) == Retention("compliance", 1795478400 * 10**9, 1795564800 * 10**9)
    for name in whole:
        assert locking.retention_of({**whole, name: "nonsense"}) is None or name == "x-amz-object-lock-mode"
        assert locking.retention_of({one: value for one, value in whole.items() if one != name}) is None


# What is there already is used again only while it stays as long.


async def test_a_segment_is_shared_while_it_stays_long_enough_and_written_beside_when_not(locked: str) -> None:
    repository = await new_repository(store(locked, 1))
    await take(repository, "one", STREAMS)
    await take(await Repository.open(store(locked, 1)), "two", STREAMS)
    segments = {key for key in await listed(locked, "sources/") if "/segments/" in key}
    assert len(segments) == 2
    # Now each backup is to stay for two days: the first one's segments do not.
    await take(await Repository.open(store(locked, 2)), "three", MORE)
    more = {key for key in await listed(locked, "sources/") if "/segments/" in key} - segments
    assert sorted(bool(re.search(r"-2\.parquet$", key)) for key in more) == [False, True, True]
    await take(await Repository.open(store(locked, 2)), "four", MORE)
    assert {key for key in await listed(locked, "sources/") if "/segments/" in key} == segments | more
    assert await sound(locked) == {"one", "two", "three", "four"}


async def test_with_a_rule_of_the_bucket_it_is_the_same(
    seaweed: Seaweed, locked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule(seaweed, locked, days=1)
    await take(await new_repository(store(locked)), "one", STREAMS)
    await take(await Repository.open(store(locked)), "two", STREAMS)
    segments = {key for key in await listed(locked, "sources/") if "/segments/" in key}
    assert len(segments) == 2
    later = time.time_ns() + 2 * 3600 * 10**9
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: later)
        await take(await Repository.open(store(locked)), "three", STREAMS)
    more = {key for key in await listed(locked, "sources/") if "/segments/" in key} - segments
    assert len(more) == 2
    assert all(key.endswith("-2.parquet") for key in more)
    assert await sound(locked) == {"one", "two", "three"}


def rule(seaweed: Seaweed, url: str, days: int) -> None:
    body = (
        "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>"
        f"<Mode>GOVERNANCE</Mode><Days>{days}</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
    )
    assert seaweed.request("PUT", f"/{url.removeprefix('s3://')}?object-lock", body=body.encode()).status == 200


# Expire.


async def let_go(url: str, *, dry_run: bool = False) -> ExpireReport:
    repository = await Repository.open(store(url))
    return await expire(repository, Policy(last=1), now_ns=time.time_ns, emit=quiet, dry_run=dry_run, grace_ns=0)


async def days(repository: Repository, *labels: str, first: int = 0) -> None:
    for at, label in enumerate(labels, first):
        streams = {"ORDERS": Stream([*RUNS, orders(13, 13 + at)])}
        await take(repository, label, streams, started=datetime.now(UTC) - timedelta(days=10 - at))


async def test_expire_keeps_what_is_locked_and_says_until_when(locked: str) -> None:
    await days(await new_repository(store(locked, 1)), "monday", "tuesday", "wednesday")
    before = await listed(locked)
    for dry_run in (True, False):
        report = await let_go(locked, dry_run=dry_run)
        assert report.expired == []
        assert sorted(report.locked) == ["monday", "tuesday"]
        for until in report.locked.values():
            assert until
            assert DAY_NS < until - time.time_ns() < 1.6 * DAY_NS
        assert await listed(locked) == before
    assert await sound(locked) == {"monday", "tuesday", "wednesday"}
    done = await asyncio.to_thread(run, "expire", "--keep-last", "1", repo=locked)
    assert re.search(
        r"locked +monday .*the store keeps it until 20\d\d-\d\d-\d\d \d\d:\d\d:\d\dZ, then it can go", done.stdout
    )
    assert "expired 0 of 3 backups" in done.stdout
    document = told(await asyncio.to_thread(run, "expire", "--keep-last", "1", "--dry-run", "--json", repo=locked))
    assert {one["label"] for one in document["repositories"][0]["locked"]} == {"monday", "tuesday"}


async def test_expire_lets_go_when_the_lock_is_over(locked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Lock.headers
    monkeypatch.setattr(Lock, "headers", lambda self, now, seconds=None: original(self, now, 3))
    await days(await new_repository(store(locked, 1)), "monday", "tuesday")
    monkeypatch.setattr(Lock, "headers", original)
    await days(await Repository.open(store(locked, 1)), "wednesday", first=2)
    await asyncio.sleep(4)
    report = await let_go(locked)
    assert sorted(report.expired) == ["monday", "tuesday"]
    assert report.locked == {}
    assert report.deleted_objects >= 4
    assert await sound(locked) == {"wednesday"}


RETAINED_WORDS = {
    "gcs": "Client error with status 403 Forbidden: <Error><Code>RetentionPolicyNotMet</Code><Message>Object 'b/k' is subject to "
    "bucket's retention policy or object retention and cannot be deleted or overwritten until 2026-12-24T00:00:00Z</Message></Error>",
    "azure": "Client error with status 409 Conflict: <Error><Code>BlobImmutableDueToPolicy</Code><Message>This operation is not "
    "permitted as the blob is immutable due to a policy.</Message></Error>",
}


@pytest.mark.parametrize("words", RETAINED_WORDS.values(), ids=RETAINED_WORDS)
def test_a_refusal_because_of_a_rule_of_the_bucket_is_known_as_one(words: str) -> None:
    problem = explain("gs://bucket", "delete", "backups/one.json", Exception(words))
    assert problem.code == RETAINED
    assert "keeps" in problem.what


class KeepsBackups(LocalStore):
    """A store that refuses to delete what is too young, as GCS and Azure do."""

    kept = layout.BACKUPS

    async def delete(self, key: str) -> None:
        if key.startswith(self.kept):
            raise AccessDeniedError("kept by a rule", code=RETAINED)
        await super().delete(key)


async def test_where_the_store_only_refuses_the_backup_stays_whole_and_what_it_keeps_goes_later(tmp_path: Path) -> None:
    await days(await new_repository(tmp_path), "monday", "tuesday")
    place = KeepsBackups(tmp_path)
    for kept, locked_ones, gone in ((layout.BACKUPS, {"monday": None}, []), (layout.SOURCES, {}, ["monday"])):
        place.kept = kept
        repository = await Repository.open(place)
        report = await expire(repository, Policy(last=1), now_ns=time.time_ns, emit=quiet, grace_ns=0)
        assert (report.locked, report.expired) == (locked_ones, gone)
        assert bool(report.kept_back) is bool(gone)
        assert not [one for one in (await verify(repository, emit=quiet)).findings if one.severity == "damage"]
    place.kept = "nothing/"
    report = await expire(await Repository.open(place), Policy(last=1), now_ns=time.time_ns, emit=quiet, grace_ns=0)
    assert report.deleted_objects > 0
    assert report.kept_back == ""


# Stolen credentials.


class Version(NamedTuple):
    key: str
    version: str
    marker: bool
    written: datetime


def versions(seaweed: Seaweed, bucket: str) -> Iterator[Version]:
    body = seaweed.request("GET", f"/{bucket}?versions").body.decode()
    assert "<IsTruncated>false" in body
    for kind, text in re.findall(r"<(Version|DeleteMarker)>(.*?)</\1>", body):
        fields = dict(re.findall(r"<(Key|VersionId|LastModified)>([^<]*)<", text))
        written = datetime.fromisoformat(fields["LastModified"])
        yield Version(fields["Key"], fields["VersionId"], kind == "DeleteMarker", written)


def go_back(seaweed: Seaweed, bucket: str, moment: datetime) -> None:
    """What docs/how-to/object-lock.md does with Amazon's CLI: write each object anew as it was at that moment."""
    newest: dict[str, Version] = {}
    for one in versions(seaweed, bucket):
        if one.written <= moment and (one.key not in newest or newest[one.key].written < one.written):
            newest[one.key] = one
    for one in newest.values():
        if not one.marker:
            good = seaweed.request("GET", f"/{bucket}/{one.key}?versionId={one.version}")
            assert good.status == 200
            assert seaweed.request("PUT", f"/{bucket}/{one.key}", body=good.body).status == 200


@pytest.mark.parametrize("mode", ["governance", "compliance"])
async def test_who_steals_the_writer_s_key_destroys_no_finished_backup(
    seaweed: Seaweed, locked: str, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    bucket = locked.removeprefix("s3://")
    await take(await new_repository(store(locked, 1, mode)), "one", STREAMS)
    await take(await Repository.open(store(locked, 1, mode)), "two", MORE)
    finished = await listed(locked)
    grant_roles(seaweed, bucket)
    thief = USERS["writer"]
    await asyncio.sleep(1.1)  # listings tell whole seconds
    moment = datetime.now(UTC) - timedelta(seconds=0.1)
    await asyncio.sleep(1.1)
    for one in [one for one in versions(seaweed, bucket) if one.key in finished]:
        assert seaweed.request("DELETE", f"/{bucket}/{one.key}", user=thief).status == 403
        assert seaweed.request("DELETE", f"/{bucket}/{one.key}?versionId={one.version}", user=thief).status == 403
        bypass = {"x-amz-bypass-governance-retention": "true"}
        path = f"/{bucket}/{one.key}?versionId={one.version}"
        assert seaweed.request("DELETE", path, headers=bypass, user=thief).status == 403
    as_user(seaweed, monkeypatch, thief)
    for words in (("expire", "--keep-last", "1"), ("unlock",)):
        await asyncio.to_thread(run, *words, repo=locked, check=None)
    # This server cannot forbid overwriting (deploy/policies/aws-bucket-no-overwrite.json does at Amazon): that hides, no more.
    for key in finished:
        assert seaweed.request("PUT", f"/{bucket}/{key}", body=b"evil", user=thief).status == 200
    as_user(seaweed, monkeypatch, "admin")
    go_back(seaweed, bucket, moment)
    assert await sound(locked) == {"one", "two"}


async def test_a_backup_works_with_a_key_that_can_only_add(
    seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_user(seaweed, monkeypatch, "admin")
    bucket = seaweed.create_bucket()
    grant_roles(seaweed, bucket)
    deny = {
        "Sid": "nothing",
        "Effect": "Deny",
        "Principal": {"AWS": f"arn:aws:iam::000000000000:user/{USERS['writer']}"},
        "Action": ["s3:DeleteObject"],
        "Resource": [f"arn:aws:s3:::{bucket}/*"],
    }
    grant(seaweed, bucket, [*statements("writer", bucket), deny])
    as_user(seaweed, monkeypatch, USERS["writer"])
    url = f"s3://{bucket}"
    told_of: list[str] = []
    repository = await new_repository(store(url))
    for label in ("one", "two", "three", "four", "five"):
        async with lease(store(url), "backup", now_ns=time.time_ns, tell=told_of.append):
            await take(repository, label, STREAMS)
    assert len(told_of) == 5
    assert all("may not delete" in words for words in told_of)
    assert len(await listed(url, "leases/")) == 10
    assert await sound(url) == {"one", "two", "three", "four", "five"}


def test_who_steals_the_writer_s_key_of_a_sealed_repository_reads_nothing_either(
    start_server: StartServer, seaweed: Seaweed, locked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = locked.removeprefix("s3://")
    identity = pyrage.x25519.Identity.generate()
    run("init", "--encrypt-to", str(identity.to_public()), repo=locked)
    grant_roles(seaweed, bucket)
    nats = asyncio.run(start_server())
    asyncio.run(secrets_in(nats.url))
    as_user(seaweed, monkeypatch, USERS["writer"])
    run("backup", repo=locked, url=nats.url)
    for words in (("cat", "VAULT"), ("restore", "VAULT", "--as", "MINE"), ("drill",)):
        assert run(*words, repo=locked, url=nats.url, check=None).returncode == 12, words
    stolen = {
        one.key: seaweed.request("GET", f"/{bucket}/{one.key}?versionId={one.version}", user=USERS["writer"]).body
        for one in versions(seaweed, bucket)
        if not one.marker
    }
    assert sum(len(data) for data in stolen.values()) > 1000
    for key, data in stolen.items():
        assert b"the combination" not in data, key
        assert b"safe.left" not in data, key
    monkeypatch.setenv("JETKEEP_IDENTITY", str(identity))
    assert "the combination" in run("cat", "VAULT", repo=locked).stdout


async def secrets_in(url: str) -> None:
    async with Publisher(url) as publisher:
        await publisher.create("VAULT", storage="file", subjects=["safe.>"])
        await publisher.store_all(("safe.left", b"the combination is %d" % at, b"") for at in range(200))


@pytest.mark.parametrize("days", [None, 2])
async def test_a_damaged_object_is_repaired_in_a_locked_bucket_and_is_locked_again(
    locked: str, tmp_path: Path, days: int | None
) -> None:
    place = store(locked, days)
    repository = await new_repository(place)
    await take(repository, "one", STREAMS)
    there = await new_repository(tmp_path)
    await copy_backups(repository, there, emit=quiet, now_ns=time.time_ns)
    (key,) = [one for one in await listed(locked) if "00001-" in one]
    await store(locked).replace(key, b"rotten")
    (done,) = await repair(repository, [there], {key: ["one"]}, write=True, emit=quiet, now_ns=time.time_ns)
    assert done.done
    assert await sound(locked) == {"one"}
    assert (await place.retention(key) is not None) == bool(days)
