"""`jetkeep audit`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from jetkeep.audit import Finding, Report

_BROKEN = 30
_UNREAD = 2


@click.command("audit")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--live", is_flag=True, help="Look at what is applied in a cluster; reads only.")
@click.option("--namespace", metavar="NAME", help="With --live.  [default: the context's or the pod's, else jetkeep]")
@click.option("--kube-context", metavar="NAME", help="With --live.  [default: the kubeconfig's current one]")
@click.option("--template", is_flag=True, help="These files are meant to be filled in: placeholders are no findings.")
@click.option(
    "--format",
    "shape",
    type=click.Choice(["text", "json", "sarif"]),
    default="text",
    show_default=True,
    help="Of the result.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--fail-on",
    type=click.Choice(["note", "warning", "error"]),
    default="warning",
    show_default=True,
    help="From which severity on the exit status is 30.",
)
@click.option("--show-suppressed", is_flag=True, help="Tell what is suppressed, too, and why.")
def command(
    paths: tuple[str, ...],
    live: bool,
    namespace: str | None,
    kube_context: str | None,
    template: bool,
    shape: str,
    as_json: bool,
    fail_on: str,
    show_suppressed: bool,
) -> int:
    """Is what stands in these manifests safe to rely on? Changes nothing, prints no secret.

    For those who change our manifests or write their own: secrets in the open, placeholders, plaintext endpoints,
    permissions wider than needed, pod security, no retention, no alert, no drill, a volume of which Velero stores nothing.
    PATH: YAML, JSON, jetkeep.toml, NATS configurations, folders of these, or - for stdin; all of it is looked at as one
    installation. Exit status 0 clean, 30 a rule is broken, 2 something could not be read.

    \b
    Examples:
      kubectl kustomize my-overlay | jetkeep audit -
      jetkeep audit deploy/ jetkeep.toml
      jetkeep audit --live --namespace jetkeep
      jetkeep audit --format sarif manifests/ > audit.sarif
    """
    from jetkeep.errors import UsageError

    if bool(paths) == live:
        raise UsageError(
            "name files, or --live for a cluster" if not live else "--live looks at a cluster, not at files",
            code="usage.audit",
            hint="`kubectl kustomize DIRECTORY | jetkeep audit -` looks at what would be applied",
        )
    report = _look(paths, live, namespace, kube_context, template)
    broken = any(one.severity.word in _from(fail_on) for one in report.findings)
    status = _BROKEN if broken else _UNREAD if report.unread else 0
    shape = "json" if as_json else shape
    if shape == "sarif":
        from jetkeep.audit.sarif import sarif

        click.echo(json.dumps(sarif(report), indent=2, ensure_ascii=False))
    elif shape == "json":
        _json(report, status)
    else:
        _text(report, show_suppressed)
    return status


def _look(
    paths: tuple[str, ...], live: bool, namespace: str | None, kube_context: str | None, template: bool
) -> Report:
    from jetkeep.audit import audit

    if not live:
        return audit(paths, template=template)
    from jetkeep.audit.live import audit_live
    from jetkeep.kube import Cluster

    return audit_live(Cluster.connect(kube_context, namespace))


def _from(severity: str) -> tuple[str, ...]:
    order = ("note", "warning", "error")
    return order[order.index(severity) :]


def _text(report: Report, show_suppressed: bool) -> None:
    from jetkeep.cli.render import say

    told: set[str] = set()
    for one in report.findings:
        say(f"{one.severity.word:<8}{one.rule.id} {one.place}")
        say(f"        {one.what}")
        if one.rule.id not in told:
            say(f"        why: {one.rule.why}")
            say(f"        fix: {one.rule.fix}")
        told.add(one.rule.id)
    if show_suppressed:
        for accepted in report.suppressed:
            finding = accepted.finding
            say(f"ignored {finding.rule.id} {finding.place}: {finding.what}; reason: {accepted.reason}")
    for name, error in report.unread:
        say(f"UNREAD  {name}: {error.what}  [{error.code}]")
        say(f"        do: {error.hint}")
    if report.unseen:
        say(f"UNSEEN  this user may not list {', '.join(report.unseen)}")
    for notice in report.notices:
        say(f"note    {notice}")
    counts = {word: sum(one.severity.word == word for one in report.findings) for word in ("error", "warning", "note")}
    words = ", ".join(f"{count} {word}{'s' if count != 1 else ''}" for word, count in counts.items() if count)
    where = f"{report.files} files, " if report.files else ""
    say(f"{words or 'nothing found'}; {len(report.suppressed)} suppressed ({where}{report.objects} objects)")


def _json(report: Report, status: int) -> None:
    from jetkeep.cli.render import document

    document(
        "jetkeep.audit/1",
        {
            "status": status,
            "files": report.files,
            "objects": report.objects,
            "findings": [_finding(one) for one in report.findings],
            "suppressed": [{**_finding(one.finding), "reason": one.reason} for one in report.suppressed],
            "unread": [{"file": name, "error": error.to_dict()} for name, error in report.unread],
            "unseen": report.unseen,
            "notices": report.notices,
        },
    )


def _finding(one: Finding) -> dict[str, Any]:
    return {
        "rule": one.rule.id,
        "name": one.rule.name,
        "severity": one.severity.word,
        "file": one.place.file,
        "line": one.place.line or None,
        "object": one.place.object or None,
        "what": one.what,
        "why": one.rule.why,
        "fix": one.rule.fix,
    }
