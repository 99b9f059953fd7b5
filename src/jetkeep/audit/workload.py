"""Pods, and what makes them: which of them run jetkeep, and which of its commands."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from jetkeep.audit.document import Document, Node

_TEMPLATES: dict[str, tuple[str, ...]] = {
    "Pod": (),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    **dict.fromkeys(("Job", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"), ("spec", "template")),
}
_IMAGE = re.compile(r"(^|[/_-])jetkeep($|[:@_-])")
COMMANDS = frozenset(
    [
        "agent",
        "backup",
        "check",
        "copy",
        "demo",
        "drill",
        "evidence",
        "expire",
        "export",
        "extract",
        "import",
        "info",
        "init",
        "key",
        "metrics",
        "pin",
        "restore",
        "unlock",
        "verify",
    ]
)


class Workload(NamedTuple):
    """An object that is a pod or makes pods of a template.

    Attributes:
        template: the pod's metadata and spec.
        commands: jetkeep's commands that its containers run.
    """

    document: Document
    template: Node
    commands: frozenset[str]

    @property
    def spec(self) -> Node:
        """The pod's spec."""
        return self.template.get("spec")

    @property
    def job(self) -> Node:
        """The Job's spec, of a Job or CronJob."""
        here = self.document.node.get("spec")
        return here.get("jobTemplate", "spec") if self.document.kind == "CronJob" else here

    @property
    def containers(self) -> list[Node]:
        """All, those that run first among them."""
        return [*self.spec.get("initContainers").all, *self.spec.get("containers").all]

    @property
    def runs(self) -> bool:
        """Whether it runs by itself: neither suspended nor scaled to none."""
        spec = self.document.node.get("spec")
        return spec.get("suspend").value is not True and spec.get("replicas").value != 0

    @property
    def stays(self) -> bool:
        """Whether its pod is meant to be there all the time."""
        return self.document.kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet") and self.runs


def workloads(documents: Iterable[Document]) -> list[Workload]:
    """Those that run jetkeep; a pod that another object made is told by that object."""
    return [one for document in documents if (one := _workload(document)) and one.commands]


def _workload(document: Document) -> Workload | None:
    path = _TEMPLATES.get(document.kind)
    if path is None or document.node.get("metadata", "ownerReferences").all:
        return None
    template = document.node.get(*path)
    spec = template.get("spec")
    containers = [*spec.get("initContainers").all, *spec.get("containers").all]
    return Workload(document, template, frozenset(one for container in containers for one in _commands(container)))


def _commands(container: Node) -> set[str]:
    """What jetkeep is told to do here; `jetkeep` alone where it runs and that cannot be seen."""
    words = [*container.get("command").texts, *container.get("args").texts]
    parts = [part for word in words for part in word.split()]
    ours = _IMAGE.search(container.get("image").text) or any(one.rpartition("/")[2] == "jetkeep" for one in parts)
    if not ours:
        return set()
    return {one for one in parts if one in COMMANDS} or {"jetkeep"}
