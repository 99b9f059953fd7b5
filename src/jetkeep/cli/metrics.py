"""`jetkeep metrics`."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jetkeep.cli.options import repository_options

if TYPE_CHECKING:
    from jetkeep.config.file import ConfigFile
    from jetkeep.observe import Observation, Place, Source


@click.command("metrics")
@repository_options
@click.option("--ask-sources", is_flag=True, help="Ask the configuration's sources what no backup has yet.")
@click.option(
    "--textfile",
    metavar="PATH",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write them there, whole or not at all.",
)
@click.option("--push", metavar="URL", help="Push them to a push gateway.")
@click.option("--listen", metavar="ADDRESS", help="Serve them at http://ADDRESS/metrics until stopped.")
@click.option(
    "--every",
    default="60s",
    show_default=True,
    metavar="DURATION",
    help="With --listen: ask the repositories at most so often.",
)
def command(
    repo: str | None, ask_sources: bool, textfile: Path | None, push: str | None, listen: str | None, every: str
) -> int:
    """Figures for Prometheus, from what lies in the repositories: last success, lag, gaps, drills, sizes, failures.

    Prints them, or writes, pushes or serves them: for CronJobs, which are gone when a scrape comes. Needs only to read; no
    identity. Names and alerts: docs/reference/metrics.md, deploy/monitoring.

    \b
    Examples:
      jetkeep metrics --repo /backups
      jetkeep metrics --config jetkeep.toml --ask-sources
      jetkeep metrics --textfile /var/lib/node_exporter/textfile/jetkeep.prom --repo /backups
      jetkeep metrics --listen 0.0.0.0:9750 --config jetkeep.toml
    """
    from jetkeep.cli.running import run
    from jetkeep.config.connection import seconds
    from jetkeep.observe import exposition

    if listen:
        from jetkeep.observe.serving import Newest, address_of, serving

        async def serve() -> None:
            newest = Newest(lambda: look(repo, ask_sources=ask_sources), seconds(every))
            async with serving(address_of(listen), newest) as url:
                sys.stderr.write(f"metrics at {url}/metrics\n")
                await asyncio.Event().wait()

        run(serve())
        return 0
    found = run(look(repo, ask_sources=ask_sources))
    if textfile:
        write_textfile(found, textfile)
    if push:
        push_to(found, push)
    if not (textfile or push):
        sys.stdout.write(exposition(found).decode())
    return 0


async def look(repo: str | None, *, ask_sources: bool = False) -> Observation:
    """The figures of now."""
    from jetkeep.observe import observe

    return await observe(places(repo), sources() if ask_sources else None, now=time.time)


def places(repo: str | None) -> list[Place]:
    """The repositories that are meant."""
    from functools import partial

    from jetkeep.cli.settings import configuration, open_repository, repositories_meant, store_of
    from jetkeep.observe import Place

    config = configuration()
    return [
        Place(
            name if name in config.repositories else store_of(name).url,
            name not in config.repositories or config.required(name),
            partial(open_repository, name, read=False),
        )
        for name in (one or "" for one in repositories_meant(repo))
    ]


def sources(config: ConfigFile | None = None) -> dict[str, Source]:
    """The configuration's sources; without one the account of NATS_* variables and the context, as `backup` takes it."""
    from functools import partial

    from jetkeep.cli.settings import configuration, server_settings
    from jetkeep.config.sources import source_settings
    from jetkeep.jetstream import connect
    from jetkeep.observe import Source

    tables = (config or configuration()).sources
    if not tables:
        settings = server_settings({})
        return {settings.context or "nats": Source(partial(connect, settings))}
    return {name: Source(partial(connect, source_settings(one)), tuple(one.exclude)) for name, one in tables.items()}


def write_textfile(found: Observation, path: Path) -> None:
    """Write the figures whole or not at all.

    Raises:
        UsageError: it cannot be written there.
    """
    from prometheus_client import write_to_textfile

    from jetkeep.errors import UsageError
    from jetkeep.observe import registry_of

    try:
        write_to_textfile(str(path), registry_of(found))
    except OSError as failure:
        raise UsageError(
            f"cannot write the metrics to {path}: {failure.strerror}",
            code="metrics.textfile",
            means="backups are untouched; monitoring sees the figures of before",
            hint="the folder must be there, and this user must be able to write to it",
        ) from None


def push_to(found: Observation, url: str) -> None:
    """Push the figures, in the place of those that were pushed before.

    Raises:
        UsageError: the gateway does not take them.
    """
    from prometheus_client import push_to_gateway

    from jetkeep.errors import UsageError
    from jetkeep.observe import registry_of

    try:
        push_to_gateway(url, "jetkeep", registry_of(found), timeout=10)
    except (OSError, ValueError) as failure:
        raise UsageError(
            f"the push gateway did not take the metrics: {failure}",
            code="metrics.push",
            means="backups are untouched; monitoring sees the figures of before",
            hint="check the URL (--push, or `push-gateway` of [metrics]) and whether the gateway is up",
        ) from None


async def publish(quiet: bool) -> None:
    """At a run's end: what `[metrics]` of the configuration asks for. A failure is a notice, and nothing else."""
    from jetkeep.cli.progress import notices
    from jetkeep.cli.settings import configuration
    from jetkeep.errors import JetkeepError

    table = configuration().metrics
    if not table or not (table.textfile or table.push_gateway):
        return
    try:
        found = await look(None)
        if table.textfile:
            await asyncio.to_thread(write_textfile, found, Path(table.textfile))
        if table.push_gateway:
            await asyncio.to_thread(push_to, found, table.push_gateway)
    except JetkeepError as failure:
        notices(quiet)(failure.what)
