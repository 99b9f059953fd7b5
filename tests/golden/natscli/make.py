"""Make the directories beside this file with the official CLI, from real servers. They are committed; this renews them.

NATSCLI=~/go/bin/nats .venv/bin/python tests/golden/natscli/make.py

account-<version>/   `nats backup account` of a server of each minor release
expected/            what these servers told themselves about every message and consumer, one by one through the API
edited-2.15/         `nats backup edit --subject 'orders.1'` of the newest one's ORDERS
captured-2.15/       `nats sub --stream ORDERS --direct --backup`
errors-2.10/         what a 2.10 server sends, and the official CLI calls a success, when it cannot read its own store
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client

from jetkeep.sandbox import Sandbox

HERE = Path(__file__).parent
NOT_UTF8 = b"orders.\xff\xfe"
VERSIONS = ("2.10", "2.11", "2.12", "2.14", "2.15")
NATSCLI = os.environ.get("NATSCLI") or shutil.which("nats") or str(Path("~/go/bin/nats").expanduser())


async def api(client: Client, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    reply = await client.request(f"$JS.API.{subject}", json.dumps(body).encode() if body else b"", timeout=5)
    told: dict[str, Any] = json.loads(reply.data)
    if "error" in told:
        raise RuntimeError(f"{subject}: {told['error']}")
    return told


def natscli(server: Sandbox, *words: str) -> None:
    done = subprocess.run(
        [NATSCLI, "--no-context", "-s", server.url, *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"nats {' '.join(words)}: {done.stdout}{done.stderr}")


async def fill(client: Client) -> None:
    """Three streams: one with all that can be told from outside, one empty, one empty but advanced."""
    await api(
        client,
        "STREAM.CREATE.ORDERS",
        {"name": "ORDERS", "subjects": ["orders.>"], "storage": "file", "max_msgs": 40, "allow_direct": True},
    )
    for number in range(48):  # the first eight are removed by max_msgs
        raw = b"NATS/1.0\r\nA: 1\r\nb: x\r\nA: 2\r\n\r\n" if number % 3 == 0 else b""
        await publish_raw(client, f"orders.{number % 4}".encode(), raw, b"payload " * (number % 5))
        if number == 30:
            await publish_raw(client, NOT_UTF8, b"", b"\x00\xff binary")
    while (await api(client, "STREAM.INFO.ORDERS"))["state"]["last_seq"] < 49:
        await asyncio.sleep(0.01)
    for seq in (20, 21, 33, 49):
        await api(client, "STREAM.MSG.DELETE.ORDERS", {"seq": seq})
    for name, settings in (
        ("all", {"durable_name": "all", "ack_policy": "explicit"}),
        ("filtered", {"durable_name": "filtered", "ack_policy": "explicit", "filter_subject": "orders.1"}),
        ("unused", {"durable_name": "unused", "ack_policy": "explicit"}),
    ):
        await api(client, f"CONSUMER.DURABLE.CREATE.ORDERS.{name}", {"stream_name": "ORDERS", "config": settings})
    for name, count, acks in (("all", 8, (0, 1, 4)), ("filtered", 4, (0, 1, 2, 3))):
        bound = await client.jetstream().pull_subscribe_bind(name, "ORDERS")
        got = await bound.fetch(count)
        for at in acks:
            await got[at].ack()
        if name == "all":
            await got[5].nak()
            await asyncio.sleep(0.2)
            await bound.fetch(1)
    for name in ("EMPTY", "PURGED"):
        await api(client, f"STREAM.CREATE.{name}", {"name": name, "subjects": [name.lower()], "storage": "file"})
    await client.jetstream().publish("purged", b"gone")
    await api(client, "STREAM.PURGE.PURGED")


async def publish_raw(client: Client, subject: bytes, headers: bytes, payload: bytes) -> None:
    """Publish exactly these bytes: the client library would refuse the subject and change the headers."""
    verb = b"HPUB %b %d %d\r\n" % (subject, len(headers), len(headers) + len(payload))
    line = verb if headers else b"PUB %b %d\r\n" % (subject, len(payload))
    await client._send_command(line + headers + payload + b"\r\n")
    await client.flush()


async def expected(client: Client) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name in ("ORDERS", "EMPTY", "PURGED"):
        info = await api(client, f"STREAM.INFO.{name}")
        messages = []
        for seq in range(max(info["state"]["first_seq"], 1), info["state"]["last_seq"] + 1):
            try:
                one = (await api(client, f"STREAM.MSG.GET.{name}", {"seq": seq}))["message"]
            except RuntimeError:
                continue  # deleted
            # The API has no way to say a subject that is not UTF-8; there is one.
            subject = NOT_UTF8 if "\ufffd" in one["subject"] else one["subject"].encode()
            words = base64.b64encode(subject).decode()
            messages.append([one["seq"], one["time"], words, one.get("hdrs", ""), one.get("data", "")])
        consumers = {}
        for one in (await api(client, f"CONSUMER.LIST.{name}"))["consumers"]:
            keep = ("delivered", "ack_floor", "num_ack_pending", "num_redelivered", "created")
            consumers[one["name"]] = {key: one[key] for key in keep}
        told[name] = {"created": info["created"], "state": info["state"], "messages": messages, "consumers": consumers}
    return told


async def account(version: str) -> None:
    async with Sandbox(version) as server:
        client = await nats.connect(server.url)
        await fill(client)
        await asyncio.sleep(0.3)
        folder = fresh(f"account-{version}")
        (HERE / "expected").mkdir(exist_ok=True)
        (HERE / "expected" / f"{version}.json").write_text(json.dumps(await expected(client), indent=1))
        natscli(server, "backup", "account", str(folder), "--force")
        if version == VERSIONS[-1]:
            source = str(folder / "ORDERS")
            natscli(
                server, "backup", "edit", source, str(fresh("edited-2.15")), "--subject", "orders.1", "--no-progress"
            )
            capture = str(fresh("captured-2.15"))
            natscli(
                server, "sub", "--stream", "ORDERS", "--direct", "--all", "--backup", capture, "--quiet", "--wait", "1s"
            )
        await client.close()


async def errors() -> None:
    """2.10 with compression and a secure delete in an older block: the tar holds errors.txt and no message."""
    async with Sandbox("2.10") as server:
        client = await nats.connect(server.url)
        await api(
            client,
            "STREAM.CREATE.ORDERS",
            {"name": "ORDERS", "subjects": ["orders.>"], "storage": "file", "compression": "s2"},
        )
        for number in range(20_000):
            await client.publish(f"orders.{number % 3}", b"x" * 1000)
        await client.flush()
        await asyncio.sleep(2)
        for seq in (3, 103, 203):
            await api(client, "STREAM.MSG.DELETE.ORDERS", {"seq": seq})
        natscli(server, "backup", "stream", "ORDERS", str(fresh("errors-2.10")), "--no-progress")
        await client.close()


def fresh(name: str) -> Path:
    shutil.rmtree(HERE / name, ignore_errors=True)
    return HERE / name


async def main() -> None:
    for version in VERSIONS:
        await account(version)
    await errors()


if __name__ == "__main__":
    asyncio.run(main())
