"""Make the snapshots beside this file from real servers. They are committed; this renews them.

.venv/bin/python -m tests.golden.msgblock.make

<version>.tar.s2   what the server sent
<version>.json     what it told about every message and consumer, one by one through the API
"""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

from jetkeep.jetstream import JetStream
from jetkeep.jetstream.messages import read
from jetkeep.model import JsonDict
from jetkeep.sandbox import Sandbox
from tests.publisher import Publisher, header_block
from tests.restoring import connected
from tests.versions import VERSIONS

HERE = Path(__file__).parent
STREAM = "GOLDEN"


async def fill(publisher: Publisher, js: JetStream) -> None:
    """Everything that removes messages, in one stream; and a consumer with what it has not acknowledged."""
    await publisher.create(STREAM, max_msgs_per_subject=12, max_msgs=90)
    headers = header_block(("A", "1"), ("b", "x"), ("A", "2"))
    await publisher.store_all(
        (f"{STREAM}.{at % 9}", b"%d " % at * (at % 9), headers if at % 4 == 0 else b"") for at in range(150)
    )
    await publisher.delete(STREAM, 70, 71, 150)
    for seq in (80, 149):
        await js.request(f"STREAM.MSG.DELETE.{STREAM}", {"seq": seq, "no_erase": True})
    await js.request(f"STREAM.PURGE.{STREAM}", {"filter": f"{STREAM}.3"})
    await publisher.store_all((f"{STREAM}.7", b"late %d" % at, b"") for at in range(5))
    await publisher.create_consumer(STREAM, "worker", filter_subject=f"{STREAM}.5", ack_wait=10**9 * 3600)
    subscription = await js.client.subscribe("golden")
    await js.client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.worker", b'{"batch": 6}', reply="golden")
    for at in range(6):
        message = await subscription.next_msg(timeout=5)
        if at in (0, 1, 4):
            await js.client.request(message.reply, b"+ACK", timeout=5)
    await publisher.create_consumer(STREAM, "fresh")


async def told(js: JetStream, state: JsonDict) -> JsonDict:
    """What the server says about the stream, messages in base64."""
    rows = [
        (row.seq, row.ts, *(base64.b64encode(part).decode() for part in row[2:]))
        async for row in read(js, STREAM, state["first_seq"], state["last_seq"], {})
    ]
    consumers = {}
    for name in ("fresh", "worker"):
        info = await js.request(f"CONSUMER.INFO.{STREAM}.{name}")
        consumers[name] = {key: info[key] for key in ("delivered", "ack_floor", "num_ack_pending", "num_redelivered")}
    return {"state": state, "messages": rows, "consumers": consumers}


async def make(version: str) -> None:
    async with Sandbox(version) as server, connected(server) as js, Publisher(server.url) as publisher:
        await fill(publisher, js)
        async with js.snapshot(STREAM) as snapshot:
            (HERE / f"{version}.tar.s2").write_bytes(b"".join([chunk async for chunk in snapshot]))
        (HERE / f"{version}.json").write_text(json.dumps(await told(js, snapshot.state)) + "\n")


if __name__ == "__main__":
    for each in VERSIONS:
        if each < "2.15":
            asyncio.run(make(each))
