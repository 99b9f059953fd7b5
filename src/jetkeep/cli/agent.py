"""`jetkeep agent`."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from jetkeep.cli.options import CONFIG, config_option

if TYPE_CHECKING:
    from jetkeep.agent import Agent
    from jetkeep.agent.loop import Opener
    from jetkeep.config.file import ConfigFile
    from jetkeep.observe import Observation
    from jetkeep.repository.repository import Repository

#: How often the configuration is looked at for a change, in seconds.
_LOOK_S = 5.0
#: The repositories are asked for metrics at most so often, in seconds.
_METRICS_S = 60.0
#: A loop that did not turn for so long, in seconds, does not work any more.
_DEAD_S = 60.0


@click.command("agent")
@config_option
def command() -> int:
    """Do on schedule what CronJobs do elsewhere, and serve /metrics, /healthz and /readyz. Runs until stopped.

    The configuration's [schedules.KIND] say what runs when: backup, copy, drill, expire, verify. Of several replicas one
    does the work of each time; what was missed while none was there is made good at the start. A changed configuration is
    taken at once (or on SIGHUP); one that is wrong is refused, and the one before counts. SIGTERM stops what runs without
    harm, within ten seconds.

    \b
    Examples:
      jetkeep agent --config /etc/jetkeep/jetkeep.toml
      JETKEEP_CONFIG=/etc/jetkeep/jetkeep.toml jetkeep agent
    """
    from jetkeep.cli.running import run
    from jetkeep.errors import InterruptedRunError

    try:
        run(_serve(_config_path()))
    except InterruptedRunError:
        log("stopped")
    return 0


def _config_path() -> str:
    import os

    from jetkeep.errors import UsageError

    context = click.get_current_context()
    path = context.meta.get(CONFIG) or os.environ.get("JETKEEP_CONFIG", "")
    if not path:
        raise UsageError(
            "the agent needs a configuration",
            code="usage.config",
            means="nothing was scheduled",
            hint="--config FILE or JETKEEP_CONFIG, with [repositories.NAME] and [schedules.KIND] (docs/how-to/agent.md)",
        )
    return str(path)


def log(event: str, **facts: Any) -> None:
    """One line on stderr: JSON, or for a terminal words."""
    now = datetime.now(UTC)
    if sys.stderr.isatty():
        told = " ".join(f"{name}={value}" for name, value in facts.items())
        sys.stderr.write(f"{now:%H:%M:%S} {event} {told}\n")
    else:
        sys.stderr.write(json.dumps({"time": f"{now:%Y-%m-%dT%H:%M:%S.%f}Z", "event": event, **facts}) + "\n")
    sys.stderr.flush()


@dataclass(slots=True)
class _State:
    """The agent of the configuration that counts; `refused` says why the newest one does not."""

    path: str
    text: str
    agent: Agent
    config: ConfigFile
    refused: str = ""
    retired: list[asyncio.Task[None]] = field(default_factory=list)


def _made(path: str, text: str) -> tuple[Agent, ConfigFile]:
    """The agent of a configuration.

    Raises:
        UsageError: something in it cannot be used.
    """
    from functools import partial

    from jetkeep.agent import Agent, schedules_of
    from jetkeep.agent.loop import runner
    from jetkeep.config.connection import seconds
    from jetkeep.config.file import parse_config
    from jetkeep.errors import UsageError

    config = parse_config(text, path)
    if not config.schedules or not config.repositories:
        raise UsageError(
            f"the configuration {path} has nothing to do for an agent",
            code="usage.config",
            means="nothing was scheduled",
            hint='it needs [repositories.NAME] and [schedules.KIND], such as [schedules.backup] with cron = "0 2 * * *"',
        )
    openers: list[Opener] = [partial(_open, config, name) for name in config.repositories]
    return (
        Agent(
            schedules_of(config.schedules),
            openers,
            runner(path),
            log,
            catch_up=timedelta(seconds=seconds(config.agent.catch_up)),
        ),
        config,
    )


async def _open(config: ConfigFile, name: str, create: bool = False) -> Repository:
    from jetkeep.cli.settings import seal_for, store_of_table
    from jetkeep.repository.repository import Repository

    table = config.repositories[name]
    store = store_of_table(table)
    if create:
        whom = seal_for(table.encrypt_to, None)
        return await Repository.open_or_create(store, now_ns=time.time_ns, seal_for=whom, pinned=table.sealed_to)
    return await Repository.open(store, pinned=table.sealed_to)


async def _serve(path: str) -> None:
    from jetkeep.agent.figures import figures
    from jetkeep.observe.serving import Newest, address_of, serving

    text = await asyncio.to_thread(_read, path)
    agent, config = _made(path, text)
    state = _State(path, text, agent, config)
    newest = Newest(lambda: _look(state.config), _METRICS_S, lambda: figures(state.agent, config_ok=not state.refused))

    async def healthy() -> str:
        silent = time.monotonic() - state.agent.beat
        return f"the loop has not turned for {silent:.0f} s" if silent > _DEAD_S else ""

    async def ready() -> str:
        return state.refused or await state.agent.ready()

    hangup = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup.set)
    async with serving(address_of(config.agent.listen), newest, healthy=healthy, ready=ready) as url:
        log("listening", url=url)
        _announce(state.agent)
        working = asyncio.ensure_future(state.agent.work())
        try:
            while True:
                working = await _look_again(state, working, hangup)
        finally:
            every = [working, *state.retired]
            for one in every:
                one.cancel()
            await asyncio.gather(*every, return_exceptions=True)


def _announce(agent: Agent) -> None:
    for one in agent.schedules:
        log(
            "scheduled",
            schedule=one.name,
            cron=one.cron,
            time_zone=one.zone.key,
            next=f"{one.after(datetime.now(UTC)):%Y-%m-%dT%H:%M:%SZ}",
        )


async def _look_again(state: _State, working: asyncio.Task[None], hangup: asyncio.Event) -> asyncio.Task[None]:
    """Wait a little, and take a configuration that changed; the task that works from now on."""
    from jetkeep.errors import JetkeepError

    asked = asyncio.ensure_future(hangup.wait())
    await asyncio.wait({asked, working}, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if working.done():
        working.result()  # it ends only by an error that nobody foresaw
    forced, state.retired = hangup.is_set(), [one for one in state.retired if not one.done()]
    hangup.clear()
    try:
        text = await asyncio.to_thread(_read, state.path)
        if text == state.text and not forced:
            return working
        state.text = text
        agent, config = _made(state.path, text)
    except JetkeepError as failure:
        if state.refused != failure.what:
            log("configuration-refused", why=failure.what, code=failure.code, hint=failure.hint)
        state.refused = failure.what
        return working
    state.refused = ""
    log("configuration-taken")
    state.agent.retire()
    state.retired.append(working)
    state.agent, state.config = agent, config
    _announce(agent)
    return asyncio.ensure_future(agent.work())


def _read(path: str) -> str:
    from pathlib import Path

    from jetkeep.errors import UsageError

    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        raise UsageError(f"the configuration {path} cannot be read: {failure}", code="usage.config") from None


async def _look(config: ConfigFile) -> Observation:
    from functools import partial

    from jetkeep.cli.metrics import sources
    from jetkeep.observe import Place, observe

    places = [Place(name, config.required(name), partial(_open, config, name)) for name in config.repositories]
    return await observe(places, sources(config))
