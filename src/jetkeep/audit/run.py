"""All rules over all documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jetkeep.audit.coverage import coverage
from jetkeep.audit.credentials import credentials, placeholders
from jetkeep.audit.document import Document
from jetkeep.audit.endpoints import endpoints
from jetkeep.audit.findings import Finding, Report, Severity
from jetkeep.audit.permissions import permissions
from jetkeep.audit.reading import Source, sources
from jetkeep.audit.settings import configurations
from jetkeep.audit.suppressions import Suppression, settle, suppressions
from jetkeep.audit.workload import workloads
from jetkeep.audit.workloads import pods


def audit(paths: Sequence[str], *, template: bool = False) -> Report:
    """Look at files, folders and stdin (`-`). Nothing is changed, nothing is asked of any server.

    Args:
        paths: what is looked at as one installation: an alert in one file counts for a backup in another.
        template: the files are meant to be filled in, so placeholders are no findings.

    Raises:
        UsageError: a path is not there, or there is nothing to look at.
    """
    report = Report()
    return judge(sources(paths, report.unread, report.notices), report, template=template)


def judge(found: Iterable[Source], report: Report, *, template: bool = False) -> Report:
    """Look at what was read, and complete the report."""
    documents: list[Document] = []
    accepted: list[Suppression] = []
    for source in found:
        report.files += 1
        documents += source.documents
        accepted += suppressions(source)
    report.objects = sum(1 for one in documents if one.kind)
    ours = workloads(documents)
    settings, findings = configurations(documents)
    for document in documents:
        findings += credentials(document)
        if not template:
            findings += [_as_applied(one) if document.live else one for one in placeholders(document)]
    findings += [*endpoints(settings, ours), *pods(ours), *permissions(documents, ours)]
    findings += coverage(documents, ours, settings)
    if not ours and not settings:
        report.notices.append(
            "nothing here runs jetkeep or configures it: only the rules that hold for everything were tried"
        )
    left, report.suppressed = settle(list(dict.fromkeys(findings)), accepted)
    report.findings = sorted(
        left, key=lambda one: (-one.severity, one.place.file, one.place.line, one.rule.id, one.what)
    )
    return report


def _as_applied(finding: Finding) -> Finding:
    """A placeholder that runs is more than one that may still be filled in."""
    return finding._replace(severity=Severity.ERROR)
