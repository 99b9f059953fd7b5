"""What can be wrong with a bucket, its credentials and what lies in it: each has its own error and exit status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from jetkeep.repository.address import store_at
from tests.backing_up import run, told
from tests.conftest import StartServer
from tests.object_stores.proxy import Fault, Proxy
from tests.object_stores.seaweed import Bucket
from tests.repositories import Stream, new_repository, orders, take
from tests.wrong_clock import wrong_clock

STREAMS = {"ORDERS": Stream([orders(1, 6), orders(7, 12)])}


class Told(NamedTuple):
    """How a command ended."""

    exit_status: int
    code: str
    words: str


def refused(*words: str, repo: str, url: str = "") -> Told:
    """Run a command that must fail with an error of ours."""
    done = run(*words, "--json", repo=repo, url=url, check=None)
    error = told(done)["error"]
    assert done.returncode == error["exit_status"]
    assert error["hint"], error
    return Told(done.returncode, error["code"], f"{error['what']} | {error['means']} | {error['hint']}")


def committed(url: str, *labels: str) -> str:
    """A repository with these backups; its id."""

    async def work() -> str:
        repository = await new_repository(store_at(url))
        for label in labels:
            await take(repository, label, STREAMS)
        return repository.id

    return asyncio.run(work())


def keys(bucket: Bucket, prefix: str = "") -> list[str]:
    async def work() -> list[str]:
        return sorted([info.key async for info in store_at(bucket.url).list(prefix)])

    return asyncio.run(work())


def copied(bucket: Bucket, source: str, target: str, *prefixes: str) -> None:
    """Copy objects as somebody with another tool would."""
    for key in keys(bucket):
        if key.startswith(prefixes) and key.startswith(source):
            where = f"/{bucket.name}/{bucket.prefix}"
            data = bucket.server.request("GET", f"{where}/{key}").body
            bucket.server.request("PUT", f"{where}/{target}{key.removeprefix(source)}", body=data)


# Who asks, and for what.


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
@pytest.mark.parametrize("command", ["init", "info"])
def test_credentials_that_the_store_does_not_know(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, name: str, command: str
) -> None:
    monkeypatch.setenv(name, "wrong")
    assert refused(command, repo=bucket.url)[:2] == (12, "store.credentials")


def test_no_credentials_at_all(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    assert refused("info", repo=bucket.url)[:2] == (12, "store.no-credentials")


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_clock_that_is_an_hour_wrong(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    for name, value in wrong_clock(tmp_path, seconds).items():
        monkeypatch.setenv(name, value)
    for command in ("init", "info"):
        assert refused(command, repo=bucket.url)[:2] == (12, "store.clock")


def test_a_user_who_may_not_write_reads_and_is_refused_a_backup(
    start_server: StartServer, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed(bucket.url, "one")
    for name, value in bucket.server.environment("reader").items():
        monkeypatch.setenv(name, value)
    run("info", repo=bucket.url)
    nats = asyncio.run(start_server())
    assert refused("backup", repo=bucket.url, url=nats.url)[:2] == (12, "store.denied")
    for name, value in bucket.server.environment("stranger").items():
        monkeypatch.setenv(name, value)
    assert refused("info", repo=bucket.url)[:2] == (12, "store.denied")


def test_a_bucket_that_is_not_there_is_never_created(start_server: StartServer, bucket: Bucket) -> None:
    """The server would: it makes a bucket when its administrator puts an object."""
    nats = asyncio.run(start_server())
    for words in (("init",), ("info",), ("backup",), ("verify",), ("expire", "--keep-last", "1")):
        error = refused(*words, repo="s3://nobody-made-this/x", url=nats.url)
        assert error[:2] == (13, "store.no-bucket"), words
        assert "never creates a bucket" in error.words
    assert bucket.server.request("HEAD", "/nobody-made-this").status == 404


def test_plain_http_is_used_only_when_it_is_asked_for(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    assert refused("init", repo=bucket.url)[:2] == (2, "usage.plain-http")


@pytest.fixture
def proxy(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy(bucket.server.endpoint) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.endpoint)
        yield between


#: What Amazon's servers answer, where SeaweedFS does not look.
AMAZON = {
    "expired": (400, "ExpiredToken", "The provided token has expired.", 12, "store.credentials-expired"),
    "token": (400, "InvalidToken", "The provided token is malformed or otherwise invalid.", 12, "store.credentials"),
    "clock": (
        403,
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
        12,
        "store.clock",
    ),
    "region": (
        400,
        "AuthorizationHeaderMalformed",
        "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-central-1'",
        13,
        "store.region",
    ),
    "elsewhere": (
        301,
        "PermanentRedirect",
        "The bucket you are attempting to access must be addressed using the specified endpoint.",
        13,
        "store.region",
    ),
    "denied": (403, "AccessDenied", "Access Denied", 12, "store.denied"),
}


@pytest.mark.parametrize("case", AMAZON.values(), ids=AMAZON.keys())
@pytest.mark.parametrize("command", ["init", "info"])
def test_what_amazon_refuses(bucket: Bucket, proxy: Proxy, case: tuple[int, str, str, int, str], command: str) -> None:
    status, code, message, exit_status, ours = case
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    proxy.faults = lambda seen: Fault(status=status, body=body.encode())
    error = refused(command, repo=bucket.url)
    assert error[:2] == (exit_status, ours)
    if ours == "store.region" and "expecting" in message:
        assert "eu-central-1" in error.words


# What lies there.


def test_a_bucket_that_is_no_repository_is_left_alone(start_server: StartServer, bucket: Bucket) -> None:
    bucket.server.request("PUT", f"/{bucket.name}/{bucket.prefix}/holiday.jpg", body=b"mine")
    nats = asyncio.run(start_server())
    assert refused("info", repo=bucket.url)[:2] == (10, "repository.absent")
    for words in (("init",), ("backup",)):
        assert refused(*words, repo=bucket.url, url=nats.url)[:2] == (2, "usage.not-empty")
    assert keys(bucket) == ["holiday.jpg"]


def test_nothing_at_all_is_no_repository(bucket: Bucket) -> None:
    assert refused("info", repo=bucket.url)[:2] == (10, "repository.absent")
    assert keys(bucket) == []


def test_an_object_that_is_half_there_is_found_and_never_believed(bucket: Bucket) -> None:
    committed(bucket.url, "one")
    (segment,) = [key for key in keys(bucket, "sources/") if "/segments/" in key][:1]
    where = f"/{bucket.name}/{bucket.prefix}/{segment}"
    whole = bucket.server.request("GET", where).body
    bucket.server.request("PUT", where, body=whole[: len(whole) // 2])
    done = run("verify", "--json", repo=bucket.url, check=30)
    assert "truncated" in {one["kind"] for one in told(done)["findings"]}
    assert refused("cat", "ORDERS", repo=bucket.url)[0] == 30


def test_two_repositories_that_were_mixed_up_are_told_apart(bucket: Bucket) -> None:
    committed(f"{bucket.url}/a", "mine")
    other = committed(f"{bucket.url}/b", "theirs")
    copied(bucket, "b/", "a/", "b/backups/", "b/sources/")
    done = run("info", "--json", repo=f"{bucket.url}/a", check=30)
    assert [one["label"] for one in told(done)["backups"]] == ["mine"]
    assert other in json.dumps(told(done)["damaged"])
    found = told(run("verify", "--json", repo=f"{bucket.url}/a", check=30))["findings"]
    assert "mismatch" in {one["kind"] for one in found}
    assert refused("info", "theirs", repo=f"{bucket.url}/a")[:2] == (30, "data.mismatch")


def test_of_a_repository_that_was_copied_half_what_is_missing_is_named(bucket: Bucket) -> None:
    committed(f"{bucket.url}/a", "one", "two")
    copied(bucket, "a/", "half/", "a/jetkeep.json", "a/backups/")
    run("info", repo=f"{bucket.url}/half")
    found = told(run("verify", "--json", repo=f"{bucket.url}/half", check=30))["findings"]
    assert {one["kind"] for one in found} == {"missing"}
    assert refused("cat", "ORDERS", repo=f"{bucket.url}/half")[0] == 30
    copied(bucket, "a/", "headless/", "a/backups/", "a/sources/")
    error = refused("info", repo=f"{bucket.url}/headless")
    assert error[:2] == (10, "repository.headless")
    assert "jetkeep.json" in error.words
