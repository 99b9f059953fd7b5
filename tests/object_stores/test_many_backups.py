"""How many requests a listing of thousands of backups takes."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import msgspec
import pytest

from jetkeep.repository import encoding, layout
from jetkeep.repository.address import store_at
from jetkeep.repository.store import side_by_side
from tests.backing_up import run
from tests.object_stores.proxy import Proxy
from tests.object_stores.seaweed import Bucket
from tests.repositories import BEGAN, new_repository, some_streams, take

TEN_THOUSAND = pytest.param(10_000, 20, marks=pytest.mark.slow)


@pytest.mark.parametrize(("count", "requests"), [(1200, 12), TEN_THOUSAND])
def test_thousands_of_backups_list_in_a_few_requests(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, count: int, requests: int
) -> None:
    async def prepare() -> None:
        store = store_at(bucket.url)
        repository = await new_repository(store)
        streams = {"ORDERS": some_streams()["ORDERS"]}
        first = await take(repository, "first", streams)

        async def put(at: int) -> None:
            when = (BEGAN + timedelta(minutes=at)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            one = msgspec.structs.replace(first, label=f"b{at:06d}", started_at=when)
            await store.create(layout.backup_key(one.label), encoding.seal(one))

        await side_by_side(put, range(count - 2))
        # A backup that finds so many writes their index.
        await repository.backups()
        await take(repository, "last", streams, started=BEGAN + timedelta(days=999))

    asyncio.run(prepare())
    with Proxy(bucket.server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        told = json.loads(run("info", "--json", repo=bucket.url).stdout)
        assert len(told["backups"]) == count
        assert sum(proxy.counted().values()) <= requests, proxy.counted()
