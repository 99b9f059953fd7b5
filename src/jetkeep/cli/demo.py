"""`jetkeep demo`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from jetkeep.cli.options import output_options

if TYPE_CHECKING:
    from jetkeep.demo import DemoReport


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
    from jetkeep.cli.progress import progress
    from jetkeep.cli.running import run
    from jetkeep.demo import tell

    with progress(quiet=True) as emit:
        if not quiet and not as_json:
            click.secho("jetkeep demo: two real nats-servers, a backup, a disaster, a restore", bold=True)
        report = run(tell(emit=emit))
    _json(report) if as_json else _print(report)
    return 0 if report.equal else 31


def _print(report: DemoReport) -> None:
    from jetkeep.cli.render import say, seconds, size, table

    assert report.backup is not None
    assert report.drill is not None
    times = {step: seconds(value) for step, value in report.seconds.items()}
    stored = {one.name: one.stored_bytes for one in report.backup.backup.streams}
    raw = sum(one.bytes for one in report.backup.backup.streams)
    messages = sum(one.before.messages for one in report.streams)
    say()
    _step("1", f"a shop on nats-server {report.source_version}", times["fill"])
    say("   orders with headers, deletes and a purge; a KV bucket with history; an object store;")
    say("   a work queue with pending acknowledgements; consumers; an empty stream")
    _step("2", f"backed up: {messages:,} messages, {size(raw)} stored as {size(sum(stored.values()))}", times["backup"])
    _step("3", "the server is killed and its disk removed", "")
    _step("4", f"restored into a fresh nats-server {report.target_version}", times["restore"])
    _step("5", "compared, message by message over the API, and every consumer's position", times["compare"])
    say()
    rows = []
    for one in report.streams:
        pending = sum(int(facts["num_ack_pending"]) for facts in one.after.consumers.values())
        span = f"{one.after.first_seq}-{one.after.last_seq}"
        verdict = "identical" if one.equal else "DIFFERENT"
        consumers = str(len(one.after.consumers)) + (f" ({pending} pending)" if pending else "")
        rows.append([f"   {one.name}", f"{one.after.messages:,}", span, consumers, size(stored[one.name]), verdict])
    columns = ("   stream", "messages", "sequences", "consumers", "stored", "before and after")
    table(columns, rows, ("messages", "sequences", "stored"))
    say()
    sampled = sum(one.get("sample", {}).get("compared", 0) for one in report.drill.streams)
    _step("6", f"drill: restored once more into a throw-away server: {report.drill.verdict}", times["drill"])
    say(f"   {sampled} messages byte by byte through ordinary consumers; evidence kept in the repository")
    say(f"   RTO {seconds(report.drill.rto_seconds)}, RPO {seconds(report.drill.rpo_seconds)}")
    for note in report.notes:
        say(f"   note: {note}")
    say()
    if report.equal:
        click.secho(
            "Everything came back. The same with your own server (contexts and NATS_* as with `nats`):", bold=True
        )
    else:
        click.secho("SOMETHING CAME BACK DIFFERENT: this is a bug, please report it.", bold=True)
    say("   export JETKEEP_REPO=/backups")
    say("   jetkeep check     jetkeep backup     jetkeep drill     jetkeep restore --dry-run")


def _step(number: str, what: str, took: str) -> None:
    click.echo(f"{click.style(number, bold=True)}  {what}" + (f"  ({took})" if took else ""))


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
