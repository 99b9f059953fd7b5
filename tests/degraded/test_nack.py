"""Somebody makes streams from their configuration, empty, while others restore them (docs/how-to/nack.md)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.degraded.site import Site, jetkeep
from tests.publisher import Publisher
from tests.restoring import eventually


def applied(site: Site, name: str, **config: Any) -> None:
    """What NACK does with a Stream object of this spec: creates the stream where there is none."""

    async def work() -> None:
        async with Publisher(site.nats.url) as publisher:
            await publisher.create(name, **config)

    asyncio.run(work())


def test_a_stream_that_was_made_empty_refuses_the_restore_and_keeps_what_was_published_since(site: Site) -> None:
    site.lose("ORDERS")
    applied(site, "ORDERS")
    site.publish("ORDERS", 7)
    for words in (["restore"], ["restore", "ORDERS", "--dry-run"]):
        assert "[restore.exists]" in jetkeep(*words, check=40)
    assert site.messages("ORDERS") == 7
    jetkeep("backup", "ORDERS", "-q", "--label", "since", "--source", "since")
    site.lose("ORDERS")
    jetkeep("restore", "-q", "--backup", "one")
    assert site.messages("ORDERS") == 300
    jetkeep("restore", "ORDERS", "--backup", "since", "--as", "ORDERS-since", "--accept-loss", "-q")
    assert site.messages("ORDERS-since") == 7


def test_an_object_with_a_smaller_limit_drops_what_was_restored_as_soon_as_it_is_applied(site: Site) -> None:
    site.lose("ORDERS")
    jetkeep("restore", "-q")

    async def enforced() -> int:
        async with Publisher(site.nats.url) as publisher:
            config = (await publisher.info("ORDERS"))["config"]
            await publisher.ask("$JS.API.STREAM.UPDATE.ORDERS", {**config, "max_msgs": 10})
            return int((await publisher.info("ORDERS"))["state"]["messages"])

    assert asyncio.run(enforced()) == 10


@pytest.mark.slow
def test_a_mirror_of_a_stream_that_was_made_anew_stands_still(site: Site) -> None:
    applied(site, "COPY", subjects=[], mirror={"name": "ORDERS"})

    async def work() -> tuple[bool, int, int]:
        async with Publisher(site.nats.url) as publisher:

            async def there() -> bool:
                return int((await publisher.info("COPY"))["state"]["messages"]) == 300

            followed = await eventually(there)
            await publisher.ask("$JS.API.STREAM.DELETE.ORDERS")
            await publisher.create("ORDERS")
            await publisher.store_all((f"ORDERS.{at}", json.dumps(at).encode(), b"") for at in range(5))
            await asyncio.sleep(20)
            state = (await publisher.info("COPY"))["state"]
            return followed, int(state["messages"]), int(state["last_seq"])

    assert asyncio.run(work()) == (True, 300, 300)
