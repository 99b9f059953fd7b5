"""Rules about what is not there: retention, sealing, an alert, a drill, a volume that Velero really stores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jetkeep.audit.document import Document
from jetkeep.audit.findings import Finding, Place
from jetkeep.audit.rules import RULES
from jetkeep.audit.settings import Settings
from jetkeep.audit.workload import Workload
from jetkeep.kube.velero import OPT_IN, PodView, covers, pod_view, stores_nothing

_BACK_UP = {"backup", "agent"}
_OFF_SITE = ("s3://", "gs://", "az://")


def coverage(
    documents: Sequence[Document], workloads: Sequence[Workload], settings: Sequence[Settings]
) -> Iterator[Finding]:
    """What is missing around the backups that these documents make."""
    for one in settings:
        yield from _repositories(one)
    backing = next((one for one in workloads if one.runs and one.commands & _BACK_UP), None)
    if backing is not None:
        agents = [one for one in settings if any("agent" in each.commands and each.runs for each in workloads)]
        if not _scheduled("expire", workloads, agents):
            yield _at(backing, "JK022", "nothing runs `jetkeep expire`")
        if not _scheduled("drill", workloads, agents):
            yield _at(backing, "JK025", "nothing runs `jetkeep drill`")
        if not any(one.group("heartbeat") or one.group("notifications") for one in settings) and not _alerts(documents):
            yield _at(
                backing, "JK024", "no rule of Prometheus, heartbeat or notification tells of a backup that failed"
            )
    yield from _velero(documents, workloads)


def _repositories(settings: Settings) -> Iterator[Finding]:
    for name, table in settings.group("repositories").items():
        where = f"repositories.{name}"
        if not table.get("keep"):
            yield settings.finding("JK022", f"{where} does not say what it keeps", where)
        if str(table.get("url", "")).startswith(_OFF_SITE) and not (table.get("encrypt-to") or table.get("sealed-to")):
            yield settings.finding("JK023", f"{where} is off-site and not sealed", where)


def _scheduled(command: str, workloads: Sequence[Workload], agents: Sequence[Settings]) -> bool:
    """By a workload that runs by itself, or by the agent."""
    if any(one.runs and command in one.commands and one.document.kind != "Job" for one in workloads):
        return True
    return any(name.partition("-")[0] == command for one in agents for name in one.group("schedules"))


def _alerts(documents: Sequence[Document]) -> bool:
    """Whether any rule of Prometheus looks at jetkeep's metrics."""
    for one in documents:
        groups = one.node.get("spec", "groups") if one.kind == "PrometheusRule" else one.node.get("groups")
        for group in groups.all:
            for rule in group.get("rules").all:
                if rule.get("alert") and "jetkeep" in str(rule.get("expr").value):
                    return True
    return False


def _velero(documents: Sequence[Document], workloads: Sequence[Workload]) -> Iterator[Finding]:
    pods = _pods(documents, workloads)
    specs = _specs(documents)
    if not specs and any(OPT_IN in one.annotations for one in pods):
        specs = [(None, {})]
    claims: dict[tuple[str, str], Workload] = {}
    for one in workloads:
        for claim in pod_view("", one.template.plain(), there=False).volumes.values():
            claims.setdefault((one.document.namespace, claim), one)
    for (namespace, claim), one in claims.items():
        labels = _labels(documents, namespace, claim)
        for document, spec in specs:
            if namespace and not covers(spec, namespace):
                continue
            if why := stores_nothing(spec, claim, labels, pods, _policies(documents, spec)):
                by = document.title if document else "the annotation"
                what = f"claim {claim}: by {by} Velero stores nothing of it: {why}"
                yield _of(document, what) if document else _at(one, "JK026", what)


def _pods(documents: Sequence[Document], workloads: Sequence[Workload]) -> list[PodView]:
    found = [
        pod_view(one.title, one.node.plain(), there=not one.live or one.node.get("status", "phase").text == "Running")
        for one in documents
        if one.kind == "Pod"
    ]
    found += [
        pod_view(one.document.title, one.template.plain(), there=one.stays and not one.document.live)
        for one in workloads
        if one.document.kind != "Pod"
    ]
    return found


def _specs(documents: Sequence[Document]) -> list[tuple[Document | None, dict[str, object]]]:
    return [
        (one, one.node.get("spec", "template").plain() or {})
        for one in documents
        if one.kind == "Schedule" and one.node.get("apiVersion").text.startswith("velero.io/")
    ]


def _labels(documents: Sequence[Document], namespace: str, claim: str) -> dict[str, str]:
    for one in documents:
        if one.kind == "PersistentVolumeClaim" and one.name == claim and one.namespace == namespace:
            return {key: node.text for key, node in one.node.get("metadata", "labels").items.items()}
    return {}


def _policies(documents: Sequence[Document], spec: dict[str, object]) -> list[str]:
    reference = spec.get("resourcePolicy")
    name = reference.get("name") if isinstance(reference, dict) else None
    return [
        node.text
        for one in documents
        if name and one.kind == "ConfigMap" and one.name == name
        for node in one.node.get("data").items.values()
    ]


def _at(workload: Workload, rule: str, what: str) -> Finding:
    place = Place(workload.document.file, workload.document.node.line, workload.document.title)
    return Finding(RULES[rule], place, what, RULES[rule].severity)


def _of(document: Document, what: str) -> Finding:
    place = Place(document.file, document.node.get("spec").line, document.title)
    return Finding(RULES["JK026"], place, what, RULES["JK026"].severity)
