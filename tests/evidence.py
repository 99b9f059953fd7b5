"""Evidence for tests without a server: a real repository, a real backup, the document that a drill would write of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from jetkeep import evidence
from jetkeep.catalog import choose_streams
from jetkeep.drill.document import Facts, document
from jetkeep.drill.run import DrillOptions, DrillReport
from jetkeep.drill.streams import StreamFindings
from jetkeep.drill.user_check import UserCheck
from jetkeep.evidence.signing import Signer, make_keys, read_signer
from jetkeep.model import JsonDict
from jetkeep.repository.repository import Repository
from tests.repositories import Stream, new_repository, orders, take


async def drilled(
    folder: Path, streams: dict[str, Stream] | None = None, *, sealed: bool = False, failure: str = "", **options: Any
) -> tuple[Repository, DrillReport, JsonDict]:
    """A repository with one backup, and what a good drill of it says."""
    repository = await new_repository(folder)
    backup = await take(repository, "one", streams or {"ORDERS": Stream([orders(1, 6)])})
    chosen = await choose_streams(repository, backup, ())
    report = DrillReport("0123456789ab", time.time_ns(), "2.15.1", verdict="SUCCESSFUL", finished_ns=time.time_ns())
    report.phases = {"start server": 0.05, "send": 1.0, "user check": 0.25}
    report.rto_seconds, report.rpo_seconds, report.seconds = 1.05, 3600.5, 1.5
    report.check = UserCheck("echo well", 0, 0.25, "well\n")
    for one in chosen:
        position = {"consumer_seq": 3, "stream_seq": 2}
        expected = {"delivered": position, "ack_floor": position, "pending": 1, "redelivered": 0}
        findings = StreamFindings(one.manifest, sample={"compared": 3, "left_out": 0})
        findings.found = dict(findings.to_dict()["expected"])
        findings.consumers = [{"name": "c", "expected": expected, "found": expected, "verdict": "SUCCESSFUL"}]
        report.streams.append(findings)
        if failure:
            findings.found["fingerprint"] = "1" * 32
            findings.wrong.append(failure)
            report.fail(failure)
        if sealed:
            one.entry.fingerprint = ""
    facts = Facts(
        repository.id, repository.url, backup, "0" * 64, chosen, DrillOptions(operator="me", **options), "here"
    )
    return repository, report, document(report, facts, [])


async def kept(repository: Repository, facts: JsonDict, signer: Signer | None = None, **changed: Any) -> evidence.Kept:
    """Store facts, some of them changed, as a drill does."""
    stored, page = await evidence.keep(repository, {**facts, **changed}, await evidence.next_place(repository), signer)
    await evidence.keep_page(repository, stored, page)
    return stored


def new_signer(folder: Path, name: str = "drill.key") -> Signer:
    """A new key; its public file lies beside it."""
    make_keys(folder / name)
    return read_signer(str(folder / name))
