"""A throw-away cluster, for streams with replicas."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from types import TracebackType
from typing import Any, Self

from jetkeep.errors import ServerError
from jetkeep.sandbox.server import READY_SECONDS, Sandbox


class SandboxCluster:
    """`size` servers that are one cluster; ready when its metadata has a leader and every node follows it.

    Args:
        size: number of servers.
        version, config: as for `Sandbox`, the same for each server.

    Attributes:
        servers: the nodes, named `node-1` …
    """

    def __init__(
        self, size: int = 3, version: str | os.PathLike[str] | None = None, config: dict[str, Any] | None = None
    ) -> None:
        ports = free_ports(size)
        routes = [f"nats-route://127.0.0.1:{port}" for port in ports]
        self.servers: list[Sandbox] = []
        for number, port in enumerate(ports, 1):
            cluster = {"name": "sandbox", "listen": f"127.0.0.1:{port}", "routes": routes}
            settings = {"server_name": f"node-{number}", "cluster": cluster, **(config or {})}
            self.servers.append(Sandbox(version, settings))

    @property
    def url(self) -> str:
        """Where clients connect: every node, separated by commas."""
        return ",".join(server.url for server in self.servers)

    @property
    def version(self) -> str:
        """Version of the nodes."""
        return self.servers[0].version

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def start(self) -> None:
        """Start every node that does not run, and wait until they are a cluster.

        Raises:
            ServerError: a node ended instead, or no leader was found in time.
        """
        await asyncio.gather(*(server.start() for server in self.servers if not server.running))
        await self.settle()

    def close(self) -> None:
        """Kill every node and remove what it stored."""
        for server in self.servers:
            server.close()

    async def settle(self) -> None:
        """Wait until every node that runs follows the same leader and has caught up.

        Raises:
            ServerError: it did not come to that in time.
        """
        deadline = time.monotonic() + READY_SECONDS
        while not await self._settled():
            if time.monotonic() > deadline:
                raise ServerError(
                    f"the throw-away cluster of {len(self.servers)} found no leader within {READY_SECONDS:.0f} s",
                    code="sandbox.start",
                    means="only the sandbox failed; no data was touched",
                    hint="try again on a machine that is less busy",
                )
            await asyncio.sleep(0.05)

    async def _settled(self) -> bool:
        names = {f"node-{at}" for at, server in enumerate(self.servers, 1) if server.running}
        running = [server for server in self.servers if server.running]
        try:
            answers = await asyncio.gather(*(_get(server.monitor_url, "/jsz") for server in running))
            healthy = await asyncio.gather(*(_get(server.monitor_url, "/healthz") for server in running))
        except (OSError, ValueError):
            return False
        groups = [answer.get("meta_cluster", {}) for answer in answers]
        leaders = {group.get("leader") for group in groups}
        return (
            len(leaders) == 1
            # Right after a leader's death the others still name it.
            and leaders <= names
            and all(group.get("cluster_size") == len(self.servers) for group in groups)
            and all(answer.get("status") == "ok" for answer in healthy)
        )


async def _get(url: str, path: str) -> dict[str, Any]:
    host, port = url.removeprefix("http://").rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        body = (await reader.read()).partition(b"\r\n\r\n")[2]
    finally:
        writer.close()
    answer: dict[str, Any] = json.loads(body)
    return answer


def free_ports(count: int) -> list[int]:
    """Ports of loopback that are free now; for what must be known before a server starts."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
