"""A small shop's JetStream: what the demo loses and gets back."""

from __future__ import annotations

import asyncio
import json
import random

import nats
from nats.js.api import KeyValueConfig, ObjectStoreConfig, RetentionPolicy, StreamConfig

ORDERS = 3000
DELETED = 40
#: Name and what there is to lose in it.
STREAMS = {
    "ORDERS": "headers, deletes, a purge",
    "KV_settings": "key-value bucket, history 5",
    "OBJ_invoices": "object store",
    "JOBS": "work queue",
    "AUDIT": "empty",
}


async def fill(url: str) -> None:
    """Create the shop's streams, messages and consumers, as its applications would."""
    client = await nats.connect(url)
    js = client.jetstream()
    chance = random.Random("shop")  # noqa: S311 - the same shop every time
    await js.add_stream(StreamConfig(name="ORDERS", subjects=["orders.>"]))
    for start in range(0, ORDERS, 250):
        await asyncio.gather(*(_order(js, at, chance) for at in range(start, start + 250)))
    await js.add_consumer("ORDERS", durable_name="shipping", ack_policy="explicit", filter_subject="orders.paid")
    await js.add_consumer("ORDERS", durable_name="reports", ack_policy="none", deliver_policy="new")
    await js.add_consumer("ORDERS", durable_name="billing", ack_policy="explicit", max_ack_pending=500)
    billing = await js.pull_subscribe_bind("billing", "ORDERS")
    for at, message in enumerate(await billing.fetch(120)):
        if at % 10:
            await message.ack()
    for seq in chance.sample(range(200, ORDERS), DELETED):
        await js.delete_msg("ORDERS", seq)
    await js.purge_stream("ORDERS", subject="orders.cancelled")

    settings = await js.create_key_value(KeyValueConfig(bucket="settings", history=5))
    for at in range(60):
        await settings.put(f"shop.{at % 12}", json.dumps({"version": at}).encode())
    await settings.delete("shop.3")

    invoices = await js.create_object_store("invoices", ObjectStoreConfig(bucket="invoices"))
    for at in range(3):
        await invoices.put(f"2026-{at + 1:02d}.pdf", chance.randbytes(300_000))

    await js.add_stream(StreamConfig(name="JOBS", subjects=["jobs.>"], retention=RetentionPolicy.WORK_QUEUE))
    for at in range(80):
        await js.publish("jobs.mail", json.dumps({"to": at}).encode())
    await js.add_consumer("JOBS", durable_name="mailer", ack_policy="explicit", ack_wait=600)
    mailer = await js.pull_subscribe_bind("mailer", "JOBS")
    for at, message in enumerate(await mailer.fetch(25)):
        if at % 3:
            await message.ack_sync()

    await js.add_stream(StreamConfig(name="AUDIT", subjects=["audit.>"]))
    await client.close()


async def _order(js: nats.js.JetStreamContext, at: int, chance: random.Random) -> None:
    status = ("new", "paid", "shipped", "cancelled")[at % 4]
    body = {"order": 10_000 + at, "total": round(chance.random() * 300, 2), "customer": f"c-{chance.randrange(700)}"}
    headers = {"Nats-Msg-Id": f"order-{at}", "Content-Type": "application/json"}
    await js.publish(f"orders.{status}", json.dumps(body).encode(), headers=headers)
