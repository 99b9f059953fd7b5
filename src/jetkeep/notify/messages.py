"""What is sent, to whom, and when."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jetkeep.config.file import ConfigFile
from jetkeep.config.secrets import literal
from jetkeep.errors import JetkeepError
from jetkeep.repository.documents import RunRecord

SCHEMA = "jetkeep.notification/1"
#: How often a message is tried, how long each try may take, and how long is waited between them, in seconds.
TRIES = 3
_TIMEOUT_S = 5.0
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Told:
    """A message that was not taken: whose it was (`heartbeat`, or the notification's name), and why. No URL: it is a secret."""

    name: str
    why: str


async def tell(
    config: ConfigFile, run: RunRecord, before: str | None, *, environ: Mapping[str, str] = os.environ
) -> list[Told]:
    """Send what this run means to those whom the configuration names; which messages were not taken. Never raises.

    Args:
        config: who wants to know what.
        run: the run.
        before: the outcome of the run of its kind before, None where that is not known: a failure that goes on is told once.
        environ: where references to secrets are looked up.
    """
    event = event_of(run, before)
    sends = []
    if config.heartbeat and run.kind in config.heartbeat.kinds:
        suffix = "" if run.outcome == "success" else "/fail"
        sends.append(_guarded("heartbeat", config.heartbeat.url, environ, None, suffix))
    for name, table in config.notifications.items():
        if event in table.on:
            sends.append(_guarded(name, table.url, environ, {**body_of(run), "event": event}))
    return [one for one in await asyncio.gather(*sends) if one]


def event_of(run: RunRecord, before: str | None) -> str:
    """`failure`, `recovery`, `success`, or `still-failing` for one that was told before."""
    if run.outcome == "success":
        return "recovery" if before in ("failure", "partial") else "success"
    return "still-failing" if before in ("failure", "partial") else "failure"


def body_of(run: RunRecord) -> dict[str, Any]:
    """The documented JSON of a run; `text` is for people, as chat systems show it."""
    what = {"success": "succeeded", "partial": "was done in part", "failure": "FAILED"}[run.outcome]
    about = f" of {run.source}" if run.source else ""
    why = f": {run.error}" if run.error else f": {run.damage} damaged objects" if run.damage else ""
    return {
        "schema": SCHEMA,
        "text": f"jetkeep {run.kind}{about} {what}{why} (on {run.host}, exit status {run.exit_status})",
        "kind": run.kind,
        "outcome": run.outcome,
        "exit_status": run.exit_status,
        "error": run.error,
        "source": run.source,
        "label": run.label,
        "host": run.host,
        "tool": run.tool,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "streams": run.streams,
        "failed_streams": run.failed,
        "messages": run.messages,
        "bytes": run.bytes,
        "stored_bytes": run.stored_bytes,
        "damage": run.damage,
    }


async def _guarded(
    name: str, url: str, environ: Mapping[str, str], body: dict[str, Any] | None, suffix: str = ""
) -> Told | None:
    try:
        return await _send(name, literal(url, f"the URL of {name}", environ).rstrip("/") + suffix, body)
    except JetkeepError as failure:
        return Told(name, failure.what)


async def _send(name: str, url: str, body: dict[str, Any] | None) -> Told | None:
    import aiohttp  # noqa: PLC0415 - only who sends loads it

    why = ""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session:
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(_PAUSE_S)
            try:
                request = session.get(url) if body is None else session.post(url, json=body)
                async with request as answer:
                    if answer.status < 400:
                        return None
                    why = f"it answered {answer.status}"
                    if answer.status < 500 and answer.status != 429:
                        break  # it will not like it better the next time
            except (aiohttp.ClientError, TimeoutError, ValueError) as failure:
                # Their words can quote the URL, which is a secret.
                why = "no answer in time" if isinstance(failure, TimeoutError) else type(failure).__name__
    return Told(name, why)
