"""The S3 server that other tests rely on behaves as they believe."""

from __future__ import annotations

from jetkeep.repository.address import store_at
from tests.object_stores.seaweed import Bucket


async def test_what_is_stored_through_a_bucket_is_there_for_the_server(bucket: Bucket) -> None:
    await store_at(bucket.url).create("jetkeep.json", b"{}")
    assert bucket.server.request("GET", f"/{bucket.name}/{bucket.prefix}/jetkeep.json").body == b"{}"


async def test_every_bucket_is_fresh(bucket: Bucket) -> None:
    assert [one async for one in store_at(bucket.url).list("")] == []


def test_users_may_what_they_may(bucket: Bucket) -> None:
    where = f"/{bucket.name}/{bucket.prefix}"
    assert bucket.server.request("PUT", f"{where}/a", body=b"x", user="writer").status == 200
    assert bucket.server.request("PUT", f"{where}/a", body=b"x", user="reader").status == 403
    assert bucket.server.request("GET", f"{where}/a", user="reader").body == b"x"
    assert bucket.server.request("GET", f"{where}/a", user="stranger").status == 403
