"""Who is told of a run, when, and that nobody else's trouble is the run's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from jetkeep.config.file import parse_config
from jetkeep.notify import messages, tell
from jetkeep.repository.documents import RunRecord

NOW = "2026-11-24T10:00:00Z"


def run(outcome: str = "success", kind: str = "backup", **facts: object) -> RunRecord:
    told = {"kind": kind, "outcome": outcome, "started_at": NOW, "finished_at": NOW, **facts}
    return RunRecord(**told)  # type: ignore[arg-type]


@asynccontextmanager
async def receiver(*statuses: int) -> AsyncIterator[tuple[str, list[tuple[str, str, str]]]]:
    """A server that takes everything; answers with these statuses first."""
    seen: list[tuple[str, str, str]] = []
    answers = list(statuses)

    async def take(request: web.Request) -> web.Response:
        seen.append((request.method, request.path, await request.text()))
        return web.Response(status=answers.pop(0) if answers else 200)

    app = web.Application()
    app.add_routes([web.route("*", "/{tail:.*}", take)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
    finally:
        await runner.cleanup()


CONFIG = parse_config(
    "[heartbeat]\nurl = 'env://BEAT'\n"
    "[notifications.ops]\nurl = 'env://HOOK'\n"
    "[notifications.all]\nurl = 'env://HOOK'\non = ['success']\n",
    "x",
)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_PAUSE_S", 0.01)


@pytest.mark.parametrize(
    ("outcome", "before", "paths"),
    [
        ("success", None, ["/beat", "/hook"]),  # `all` wants successes
        ("success", "success", ["/beat", "/hook"]),
        ("success", "failure", ["/beat", "/hook"]),  # `ops` wants recoveries
        ("failure", None, ["/beat/fail", "/hook"]),
        ("partial", "success", ["/beat/fail", "/hook"]),
        ("failure", "failure", ["/beat/fail"]),  # told once
        ("failure", "partial", ["/beat/fail"]),
    ],
)
async def test_each_is_told_what_it_wants_and_a_failure_once(
    outcome: str, before: str | None, paths: list[str]
) -> None:
    async with receiver() as (url, seen):
        assert await tell(CONFIG, run(outcome), before, environ={"BEAT": f"{url}/beat", "HOOK": f"{url}/hook"}) == []
    assert sorted(path for _, path, _ in seen) == paths
    assert {(method, path.startswith("/beat")) for method, path, _ in seen} <= {("GET", True), ("POST", False)}


async def test_a_webhook_gets_the_documented_json() -> None:
    async with receiver() as (url, seen):
        failed = run("failure", exit_status=20, error="nats.unreachable", source="shop", host="node-1")
        await tell(CONFIG, failed, "success", environ={"BEAT": url, "HOOK": url})
    body = next(json.loads(text) for method, _, text in seen if method == "POST")
    assert (body["schema"], body["event"], body["kind"], body["error"]) == (
        "jetkeep.notification/1",
        "failure",
        "backup",
        "nats.unreachable",
    )
    assert body["text"] == "jetkeep backup of shop FAILED: nats.unreachable (on node-1, exit status 20)"


async def test_it_is_tried_again_and_what_will_not_do_is_not() -> None:
    async with receiver(503, 429) as (url, seen):
        assert await tell(CONFIG, run(kind="drill"), None, environ={"HOOK": url}) == []
        assert len(seen) == 3
    async with receiver(404) as (url, seen):
        (told,) = await tell(CONFIG, run(kind="drill"), None, environ={"HOOK": url})
        assert (told.name, told.why, len(seen)) == ("all", "it answered 404", 1)


@pytest.mark.parametrize("environ", [{}, {"HOOK": "http://127.0.0.1:9/s3cret"}, {"HOOK": "no url s3cret"}])
async def test_who_cannot_be_told_is_named_without_the_url(environ: dict[str, str]) -> None:
    (told,) = await tell(CONFIG, run(kind="verify"), None, environ=environ)
    assert told.name == "all"
    assert told.why
    assert "s3cret" not in str(told)
