"""Wait until what the server says is so: replicas that really follow, messages that have gone or come."""

from __future__ import annotations

import asyncio
import time

from jetkeep.errors import ServerError
from jetkeep.jetstream import JetStream
from jetkeep.model import JsonDict
from jetkeep.repository.documents import Manifest
from jetkeep.restore.forecast import Forecast

#: A follower calls itself current with lag 0 before it holds a single message: it must stay so for this long.
HOLD_S = 3.0
#: … and for as long as so many bytes take to reach it, slowly counted (measured: 214 MB in 1.6 s).
BYTES_A_SECOND = 100_000_000
REPLICAS_S = 300.0
LOSSES_S = 6.0


async def replicas_follow(js: JetStream, name: str, size: int, replicas: int) -> None:
    """Return when every replica has been current, without lag, for long enough to mean it.

    Raises:
        ServerError: they were not within five minutes.
    """
    if replicas <= 1:
        return
    hold = HOLD_S + size / BYTES_A_SECOND
    deadline = time.monotonic() + REPLICAS_S + hold
    since: float | None = None
    while time.monotonic() < deadline:
        now = time.monotonic()
        if not _followed(await js.stream_info(name), replicas):
            since = None
        elif since is None:
            since = now
        elif now - since >= hold:
            return
        await asyncio.sleep(0.25)
    raise ServerError(
        f"not every replica of {name} has caught up",
        code="nats.replicas",
        means="the stream was restored and compared on its leader only; it was not opened and is removed",
        hint="look at the cluster's health, or restore with fewer --replicas",
        retryable=True,
    )


def _followed(info: JsonDict, replicas: int) -> bool:
    cluster = info.get("cluster") or {}
    others = cluster.get("replicas") or []
    return (
        bool(cluster.get("leader"))
        and len(others) == replicas - 1
        and all(one.get("current") and not one.get("lag") and not one.get("offline") for one in others)
    )


async def losses_settle(js: JetStream, manifest: Manifest, name: str, forecast: Forecast) -> tuple[int, int]:
    """Once a stream is open: wait for what was forecast; (messages of the backup that are gone, messages appended).

    Fewer may be gone than forecast after LOSSES_S; others may publish and consume meanwhile, so this tells, and judges
    nothing.
    """
    deadline = time.monotonic() + (LOSSES_S if forecast.lost or forecast.markers or forecast.due else 0)
    while True:
        state = (await js.stream_info(name))["state"]
        appended = max(int(state["last_seq"]) - manifest.last_seq, 0)
        gone = manifest.messages - (int(state["messages"]) - appended) - min(forecast.due, appended)
        if (gone, appended) == (forecast.lost, forecast.markers + forecast.due) or time.monotonic() >= deadline:
            return max(gone, 0), appended
        await asyncio.sleep(0.1)
