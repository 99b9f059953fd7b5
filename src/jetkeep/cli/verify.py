"""`jetkeep verify`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from jetkeep.cli.options import identity_options, output_options, repository_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jetkeep.model import Emit
    from jetkeep.repair import Repair
    from jetkeep.repository.repository import Repository
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
@click.option("--repair", "mend", is_flag=True, help="Bring damaged objects back from another repository.")
@click.option(
    "--from", "source", metavar="URL", help="The other repository.  [default: each other configured, in order]"
)
@output_options
def command(
    label: str | None, repo: str | None, sample: float, mend: bool, source: str | None, as_json: bool, quiet: bool
) -> int:
    """Read the stored bytes and check digests, counts, order and fingerprints: of all backups, or of one or a set.

    Exit status 30 when something is damaged; each finding says which backups it touches, and where another repository
    of the configuration has the object as it was. --repair puts it back, proven by its digest, and verifies again.

    \b
    Examples:
      jetkeep verify --repo /backups
      jetkeep verify latest --repo /backups
      jetkeep verify --sample 10 --repo /backups --json
      jetkeep verify --repair --config jetkeep.toml
      jetkeep verify --repair --repo /backups --from s3://bucket/jetkeep
    """
    from jetkeep.catalog import find_point, members
    from jetkeep.cli.progress import progress
    from jetkeep.cli.recording import recorded
    from jetkeep.cli.running import run
    from jetkeep.cli.settings import open_repository, other_repositories, others_if_any
    from jetkeep.repository.leases import lease_if_possible
    from jetkeep.verify import verify

    elsewhere = [source] if source else other_repositories(repo) if mend else others_if_any(repo)

    async def recorded_operation() -> tuple[VerifyReport, dict[str, Repair]]:
        async with recorded("verify", [repo], quiet=quiet) as recording:
            repository = await open_repository(repo)
            recording.works_on(repository)
            report, repairs = await operation(repository)
            recording.ended(0 if report.sound else 30)
            recording.facts.backups, recording.facts.bytes = report.backups, report.bytes
            recording.facts.messages = report.messages
            recording.facts.damage = sum(one.severity == "damage" for one in report.findings)
        return report, repairs

    async def operation(repository: Repository) -> tuple[VerifyReport, dict[str, Repair]]:
        wanted = (await find_point(repository, None)).label if label == "latest" else label
        labels = await members(repository, wanted) if wanted else ["*"]
        repairs: dict[str, Repair] = {}
        async with lease_if_possible(repository.store, "read", now_ns=time.time_ns, labels=labels):
            with progress(quiet) as emit:
                report = await verify(repository, emit=emit, label=wanted, sample=sample / 100)
                # What a manifest names is known when it is back: until nothing more comes back.
                while elsewhere and not report.sound:
                    found = await _look_elsewhere(repository, elsewhere, report, write=mend, emit=emit)
                    repairs |= {one.key: one for one in found}
                    if not any(one.done for one in found):
                        break
                    report = await verify(repository, emit=emit, label=wanted, sample=sample / 100)
        return report, repairs

    began = time.monotonic()
    report, repairs = run(recorded_operation())
    _print(report, repairs, time.monotonic() - began, as_json)
    return 0 if report.sound else 30


async def _look_elsewhere(
    repository: Repository, names: Sequence[str], report: VerifyReport, *, write: bool, emit: Emit
) -> list[Repair]:
    """Where other repositories have what is damaged here, put back with `write`; without it their errors are notices."""
    from jetkeep.cli.settings import open_repository
    from jetkeep.errors import JetkeepError, UsageError
    from jetkeep.model import Notice
    from jetkeep.repair import repair

    others = []
    for name in names:
        try:
            others.append(await open_repository(name))
        except UsageError:
            raise
        except JetkeepError as failure:
            if write and len(names) == 1:
                raise
            emit(Notice(f"{name} cannot be read: {failure.what}"))
    damaged = {one.key: one.backups for one in report.findings if one.severity == "damage"}
    try:
        return await repair(repository, others, damaged, write=write, emit=emit, now_ns=time.time_ns)
    except JetkeepError as failure:
        if write:
            raise
        emit(Notice(f"other repositories were not searched for what is damaged: {failure.what}"))
        return []


def _print(report: VerifyReport, repairs: Mapping[str, Repair], took: float, as_json: bool) -> None:
    from dataclasses import asdict

    from jetkeep.cli.render import document, say, seconds, size

    if as_json:
        facts = {"sound": report.sound, "seconds": round(took, 3), **asdict(report)}
        document("jetkeep.verify/1", {**facts, "repairs": [asdict(one) for one in repairs.values()]})
        return
    for one in repairs.values():
        if one.done:
            say(f"repaired {one.key}: brought back from {one.found_in}")
    for finding in report.findings:
        mark = "DAMAGE" if finding.severity == "damage" else "notice"
        touched = f"  (backups: {', '.join(finding.backups)})" if finding.backups else ""
        say(f"{mark} {finding.kind}: {finding.what}{touched}")
        if (found := repairs.get(finding.key)) and finding.severity == "damage":
            say(
                f"  {found.found_in} has it: --repair brings it back"
                if found.found_in
                else f"  not repaired: {found.why}"
            )
    if report.digests_only:
        say("sealed, and no identity was given: digests were compared, nothing was looked into (--identity)")
    skipped = f", {report.segments_skipped} not in the sample" if report.segments_skipped else ""
    verdict = "sound" if report.sound else "DAMAGED"
    say(
        f"{verdict}: {report.backups} backups, {report.segments} segments read{skipped}, "
        f"{size(report.bytes)} in {seconds(took)}"
    )
