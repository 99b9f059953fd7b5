"""`jetkeep verify`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from jetkeep.cli.options import identity_options, output_options, repository_options

if TYPE_CHECKING:
    from jetkeep.verify import VerifyReport


@click.command("verify")
@click.argument("label", required=False)
@repository_options
@identity_options
@click.option(
    "--sample",
    type=click.FloatRange(0, 100, min_open=True),
    default=100.0,
    metavar="PERCENT",
    help="Read only this part of the segments, chosen at random.  [default: 100]",
)
@output_options
def command(label: str | None, repo: str | None, sample: float, as_json: bool, quiet: bool) -> int:
    """Read the stored bytes and check digests, counts, order and fingerprints: of all backups, or of one or a set.

    Exit status 30 when something is damaged; each finding says which backups it touches.

    \b
    Examples:
      jetkeep verify --repo /backups
      jetkeep verify latest --repo /backups
      jetkeep verify --sample 10 --repo /backups --json
    """
    from jetkeep.catalog import find_point, members
    from jetkeep.cli.progress import progress
    from jetkeep.cli.running import run
    from jetkeep.cli.settings import open_repository
    from jetkeep.repository.leases import lease_if_possible
    from jetkeep.verify import verify

    async def operation() -> VerifyReport:
        repository = await open_repository(repo)
        wanted = (await find_point(repository, None)).label if label == "latest" else label
        labels = await members(repository, wanted) if wanted else ["*"]
        async with lease_if_possible(repository.store, "read", now_ns=time.time_ns, labels=labels):
            with progress(quiet) as emit:
                return await verify(repository, emit=emit, label=wanted, sample=sample / 100)

    began = time.monotonic()
    report = run(operation())
    _print(report, time.monotonic() - began, as_json)
    return 0 if report.sound else 30


def _print(report: VerifyReport, took: float, as_json: bool) -> None:
    from dataclasses import asdict

    from jetkeep.cli.render import document, say, seconds, size

    if as_json:
        document("jetkeep.verify/1", {"sound": report.sound, "seconds": round(took, 3), **asdict(report)})
        return
    for finding in report.findings:
        mark = "DAMAGE" if finding.severity == "damage" else "notice"
        touched = f"  (backups: {', '.join(finding.backups)})" if finding.backups else ""
        say(f"{mark} {finding.kind}: {finding.what}{touched}")
    if report.digests_only:
        say("sealed, and no identity was given: digests were compared, nothing was looked into (--identity)")
    skipped = f", {report.segments_skipped} not in the sample" if report.segments_skipped else ""
    verdict = "sound" if report.sound else "DAMAGED"
    say(
        f"{verdict}: {report.backups} backups, {report.segments} segments read{skipped}, "
        f"{size(report.bytes)} in {seconds(took)}"
    )
