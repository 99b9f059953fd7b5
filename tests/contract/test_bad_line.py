"""What an object store's client does when the line to a real S3 server is bad."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from jetkeep.errors import AlreadyThereError, OutcomeUnknownError, StoreFailedError
from jetkeep.repository.address import store_at
from jetkeep.repository.store import create_surely
from tests.contract.test_store import keys
from tests.object_stores.proxy import (
    CUT_DOWNLOAD,
    CUT_UPLOAD,
    LOSE_ANSWER,
    RESET,
    SLOW_DOWN,
    Fault,
    Faults,
    Proxy,
    Seen,
)
from tests.object_stores.seaweed import Bucket

DATA = os.urandom(1_500_000)


@pytest.fixture
def proxy(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy(bucket.server.endpoint) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.endpoint)
        yield between


def first(count: int, fault: Fault, method: str = "") -> Faults:
    """This fault for the first so many requests (of this method)."""
    seen: list[Seen] = []

    def faults(one: Seen) -> Fault | None:
        if method in ("", one.method):
            seen.append(one)
        return fault if len(seen) <= count and method in ("", one.method) else None

    return faults


@pytest.mark.parametrize(
    "fault", [SLOW_DOWN, RESET, CUT_UPLOAD, LOSE_ANSWER], ids=["503s", "resets", "cut uploads", "lost answers"]
)
async def test_an_upload_arrives_whole_although_the_line_fails_twice(
    bucket: Bucket, proxy: Proxy, fault: Fault
) -> None:
    store = store_at(bucket.url)
    proxy.faults = first(2, fault, "PUT")
    # Somebody has it already when an answer was lost: it was us.
    with pytest.raises(AlreadyThereError) if fault is LOSE_ANSWER else contextlib.nullcontext():
        await create_surely(store, "a/b", DATA, durable=True)
    assert await store.read("a/b", len(DATA)) == DATA
    assert proxy.counted()["PUT"] >= 2


@pytest.mark.parametrize("fault", [RESET, CUT_UPLOAD], ids=["reset", "cut"])
async def test_an_upload_that_did_not_arrive_left_nothing(bucket: Bucket, proxy: Proxy, fault: Fault) -> None:
    store = store_at(bucket.url)
    proxy.faults = first(99, fault, "PUT")
    with pytest.raises(OutcomeUnknownError) as unknown:
        await store.create("a/b", DATA)
    assert unknown.value.exit_status == 14
    assert await keys(store) == []


@pytest.mark.parametrize("fault", [SLOW_DOWN, RESET, LOSE_ANSWER, CUT_DOWNLOAD], ids=["503s", "resets", "lost", "cut"])
async def test_what_is_read_is_whole_although_the_line_fails_twice(bucket: Bucket, proxy: Proxy, fault: Fault) -> None:
    store = store_at(bucket.url)
    await store.create("a/b", DATA)
    proxy.faults = first(2, fault)
    assert await store.read("a/b", len(DATA)) == DATA


@pytest.mark.parametrize("fault", [SLOW_DOWN, RESET, LOSE_ANSWER, CUT_DOWNLOAD], ids=["503s", "resets", "lost", "cut"])
async def test_a_listing_lacks_nothing_and_has_nothing_twice_although_the_line_fails(
    bucket: Bucket, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr("jetkeep.repository.objects._PAGE", 7)  # what it hands out at once; the server's pages stay
    store = store_at(bucket.url)
    made = sorted(f"a/{at:04}" for at in range(30))
    for key in made:
        await store.create(key, b"")
    proxy.faults = first(2, fault, "LIST")
    assert [info.key async for info in store.list("a/")] == made
    assert await keys(store, "a/001") == made[10:20]


async def test_a_listing_that_is_cut_at_its_second_page_goes_on_there(bucket: Bucket, proxy: Proxy) -> None:
    store = store_at(bucket.url)
    made = [f"a/{at:04}" for at in range(1010)]
    for key in made:
        bucket.server.request("PUT", f"/{bucket.name}/{bucket.prefix}/{key}")
    listings: list[int] = []

    def second(seen: Seen) -> Fault | None:
        listings.append(seen.number)
        return CUT_DOWNLOAD if len(listings) == 2 else None

    proxy.faults = second
    assert [info.key async for info in store.list("a/")] == made
    assert len(listings) >= 3


@pytest.mark.parametrize("fault", [SLOW_DOWN, RESET, LOSE_ANSWER], ids=["503s", "resets", "lost"])
async def test_what_is_deleted_is_gone_although_the_line_fails_twice(
    bucket: Bucket, proxy: Proxy, fault: Fault
) -> None:
    store = store_at(bucket.url)
    await store.create("a/b", b"")
    proxy.faults = first(2, fault)
    await store.delete("a/b")
    proxy.faults = first(0, fault)
    assert await keys(store) == []


async def test_a_store_that_never_works_again_is_told(
    bucket: Bucket, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jetkeep.repository.objects.RETRIES", 2)
    monkeypatch.setattr("jetkeep.repository.objects._AGAIN_S", ())
    store = store_at(bucket.url)
    proxy.faults = first(9999, SLOW_DOWN)
    with pytest.raises(StoreFailedError, match="SlowDown") as read:
        await store.read("a", 1)
    with pytest.raises(StoreFailedError, match="SlowDown") as listed:
        await keys(store)
    with pytest.raises(OutcomeUnknownError, match="SlowDown"):
        await store.create("a", b"")
    for failed in (read, listed):
        assert (failed.value.exit_status, failed.value.retryable) == (13, True)
        assert failed.value.hint


async def test_an_upload_that_was_refused_is_known_not_to_be_there(bucket: Bucket, proxy: Proxy) -> None:
    proxy.faults = first(9, Fault(status=400, body=b"<Error><Code>InvalidRequest</Code><Message>No.</Message></Error>"))
    with pytest.raises(StoreFailedError, match=r"InvalidRequest: No\."):
        await store_at(bucket.url).create("a", b"")


async def test_nobody_there_is_told_at_once_by_its_name(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetkeep.repository.objects.RETRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreFailedError) as gone:
        await store_at(bucket.url).read("a", 1)
    assert (gone.value.code, gone.value.retryable) == ("store.unreachable", True)
