"""Which way a stream is read, and why. Pure: decided from what the server said of itself and of the stream."""

from __future__ import annotations

from typing import Literal, NamedTuple

from jetkeep.model import JsonDict

Method = Literal["snapshot", "messages"]


class Road(NamedTuple):
    """How a stream is read and the reason, as it stands in reports and manifests."""

    method: Method
    reason: str


def choose_road(server_version: tuple[int, int, int], config: JsonDict) -> Road:
    """Choose between the server's snapshot and reading message by message (FORMATS of the servers: docs/adr/003).

    Args:
        server_version: of the server that answers, e.g. `(2, 11, 9)`.
        config: the stream's configuration as the server gave it.
    """
    release = server_version[:2]
    if config.get("storage") == "memory" and release < (2, 15):
        return Road("messages", "servers before 2.15 have no snapshot of memory storage")
    if config.get("retention") in ("workqueue", "interest") and release < (2, 12):
        return Road(
            "messages",
            f"on {release[0]}.{release[1]} a snapshot of a {config['retention']} stream keeps messages "
            "that are acknowledged while it runs",
        )
    return Road("snapshot", "the server's own snapshot holds messages and consumers of one moment")


def in_memory_consumers_are_left_out(server_version: tuple[int, int, int], road: Road) -> bool:
    """The snapshot of a stream on disk has no consumer whose state is in memory (`mem_storage`) before 2.15."""
    return road.method == "snapshot" and server_version[:2] < (2, 15)


def parse_version(text: str) -> tuple[int, int, int]:
    """`2.12.8` or `2.15.0-RC.1` as a tuple; parts that are no numbers count as 0."""
    parts = text.split("-", 1)[0].split(".")
    numbers = [int(part) if part.isdigit() else 0 for part in (*parts, "0", "0", "0")[:3]]
    return numbers[0], numbers[1], numbers[2]
