"""`jetkeep demo`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from jetkeep.cli.options import output_options

if TYPE_CHECKING:
    from jetkeep.demo import DemoReport, StreamStory

_WIDTH = 88


@click.command("demo")
@output_options
def command(as_json: bool, quiet: bool) -> int:
    """Show the whole loop on throw-away servers: fill, back up, destroy, restore, compare, drill.

    Real nats-servers on loopback, in a temporary directory; nothing is left behind. Exit status 31 when anything that
    came back differs.

    \b
    Examples:
      jetkeep demo
      jetkeep demo --json
    """
    from jetkeep.cli.running import run
    from jetkeep.demo import tell

    if quiet or as_json:
        report = run(tell(emit=lambda _: None))
    else:
        click.secho(
            "A small shop, lost and brought back: real servers on this machine, nothing is left behind.\n", bold=True
        )
        report = run(tell(emit=_notice, done=_step))
    if as_json:
        _json(report)
    elif not quiet:
        _print(report)
    return 0 if report.equal else 31


def _notice(event: object) -> None:
    from jetkeep.model import Notice

    if isinstance(event, Notice) and not event.stream:
        click.echo(f"    {event.text}", err=True)


def _step(step: str, report: DemoReport) -> None:
    from jetkeep.cli.render import seconds

    took = seconds(report.seconds[step]) if step in report.seconds else ""
    words = {"fill": "live", "backup": "back up"}.get(step, step)
    number = ("fill", "backup", "lose", "restore", "compare", "drill").index(step) + 1
    text = _words(step, report)
    click.echo(f" {number}  {click.style(words.ljust(9), bold=True)}{text.ljust(_WIDTH - 13)} {took.rjust(7)}".rstrip())


def _words(step: str, report: DemoReport) -> str:
    from jetkeep.cli.render import size

    if step == "fill":
        return f"a shop on nats-server {report.source_version}: orders, settings, invoices, a queue of jobs"
    if step == "backup":
        assert report.backup is not None
        entries = report.backup.backup.streams
        messages, raw, stored = (
            sum(getattr(one, key) for one in entries) for key in ("messages", "bytes", "stored_bytes")
        )
        return f"{messages:,} messages of {len(entries)} streams: {size(raw)}, stored as {size(stored)}"
    if step == "lose":
        return "the server is killed and its disk removed"
    if step == "restore":
        return f"into a fresh nats-server {report.target_version}, proven before it takes publishes"
    if step == "compare":
        return "every message over the API, every consumer's position: before, after"
    assert report.drill is not None
    sampled = sum(int(one.sample.get("compared", 0)) for one in report.drill.streams)
    return f"once more, into a throw-away {report.drill.server_version}; {sampled} messages read by consumers, too"


def _print(report: DemoReport) -> None:
    from jetkeep.cli.render import seconds

    click.echo()
    rows = [("stream", "what it is", "messages", "gone", "sequences", "consumers", "verdict")]
    rows += [_row(one) for one in report.streams]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for at, row in enumerate(rows):
        cells = [
            cell.rjust(width) if 2 <= n <= 4 else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        if at:
            cells[-1] = click.style(row[-1], fg="green" if row[-1] == "identical" else "red", bold=True)
        click.echo("    " + click.style("  ".join(cells).rstrip(), bold=not at))
    click.echo()
    assert report.drill is not None
    verdict = click.style(
        report.drill.verdict, fg="green" if report.drill.verdict == "SUCCESSFUL" else "red", bold=True
    )
    rpo, rto = seconds(report.drill.rpo_seconds), seconds(report.drill.rto_seconds)
    click.echo(f"    drill: {verdict}; back in {rto} (RTO), losing the last {rpo} (RPO); evidence kept")
    for note in report.notes:
        click.echo(f"    note: {note}")
    click.echo()
    if not report.equal:
        click.secho("Something came back different. That is a bug in jetkeep: please report it.", fg="red", bold=True)
        return
    click.secho(
        "Everything came back as it was. Your own server next; contexts and NATS_* work as with `nats`:", bold=True
    )
    program = _program()
    for words, why in (
        ("export JETKEEP_REPO=$HOME/jetkeep", "where backups go; the first one creates it"),
        (f"{program} check", "what can be reached, and is permitted"),
        (f"{program} backup", "everything in the account"),
        (f"{program} drill", "prove that it comes back"),
        (f"{program} restore --dry-run", "what a restore would do, and why"),
    ):
        click.echo(f"    {words.ljust(36)}  {click.style(why, dim=True)}")


def _row(one: StreamStory) -> tuple[str, str, str, str, str, str, str]:
    from jetkeep.demo.shop import STREAMS

    seen = one.after
    gone = seen.last_seq - seen.first_seq + 1 - seen.messages if seen.messages else 0
    pending = sum(int(facts["num_ack_pending"]) for facts in seen.consumers.values())
    consumers = f"{len(seen.consumers)}, {pending} unacked" if pending else str(len(seen.consumers))
    span = f"{seen.first_seq:,}-{seen.last_seq:,}" if seen.last_seq else "none"
    verdict = "identical" if one.equal else "DIFFERENT"
    return one.name, STREAMS[one.name], f"{seen.messages:,}", f"{gone:,}", span, consumers, verdict


def _program() -> str:
    """How this program is called from where one is."""
    import os
    import shutil
    import sys
    from pathlib import Path

    if shutil.which("jetkeep"):
        return "jetkeep"
    path = Path(sys.argv[0])
    return os.path.relpath(path) if path.name == "jetkeep" and Path.cwd() in path.absolute().parents else "jetkeep"


def _json(report: DemoReport) -> None:
    from dataclasses import asdict

    from jetkeep.cli.render import document

    document(
        "jetkeep.demo/1",
        {
            "equal": report.equal,
            "source_version": report.source_version,
            "target_version": report.target_version,
            "seconds": {step: round(value, 3) for step, value in report.seconds.items()},
            "drill": report.drill.verdict if report.drill else None,
            "notes": report.notes,
            "streams": [
                {"stream": one.name, "equal": one.equal, "before": asdict(one.before), "after": asdict(one.after)}
                for one in report.streams
            ],
        },
    )
