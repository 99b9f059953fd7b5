"""A cluster as documents: what is applied, whoever wrote it. Reads only; Secrets' values are looked at and never shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jetkeep.audit.document import Document, of_plain
from jetkeep.audit.findings import Report
from jetkeep.audit.reading import Source
from jetkeep.audit.run import judge
from jetkeep.errors import ClusterError
from jetkeep.kube import Cluster

_RBAC = "rbac.authorization.k8s.io/v1"
_OWN = (
    ("v1", "pods"),
    ("v1", "configmaps"),
    ("v1", "secrets"),
    ("v1", "persistentvolumeclaims"),
    ("batch/v1", "cronjobs"),
    ("batch/v1", "jobs"),
    ("apps/v1", "deployments"),
    ("apps/v1", "statefulsets"),
    ("apps/v1", "daemonsets"),
    (_RBAC, "roles"),
    (_RBAC, "rolebindings"),
)
_EVERYWHERE = (
    (_RBAC, "clusterroles"),
    (_RBAC, "clusterrolebindings"),
    ("monitoring.coreos.com/v1", "prometheusrules"),
    ("velero.io/v1", "schedules"),
)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def audit_live(cluster: Cluster) -> Report:
    """Look at one namespace of a cluster, and at what reaches into it.

    Raises:
        ClusterError: the API server cannot be reached, or this user may see nothing of the namespace.
    """
    found = list(_sources(cluster))
    if len(cluster.unseen) >= len(_OWN) and not any(one.documents for one in found):
        raise ClusterError(
            f"this user may see nothing in namespace {cluster.namespace}",
            code="cluster.denied",
            means="nothing was looked at",
            hint="a user with the cluster role `view` sees all but Secrets",
        )
    report = judge(found, Report())
    report.files = 0
    report.unseen = list(cluster.unseen)
    return report


def _sources(cluster: Cluster) -> Iterator[Source]:
    documents = [_document(one) for group, kind in _OWN for one in cluster.objects(group, kind) or []]
    for group, kind in _EVERYWHERE:
        documents += [_document(one) for one in cluster.objects(group, kind, namespace="") or []]
    for schedule in [one for one in documents if one.kind == "Schedule"]:
        if schedule.node.get("spec", "template", "resourcePolicy", "name"):
            documents += [
                _document(one) for one in cluster.objects("v1", "configmaps", namespace=schedule.namespace) or []
            ]
    yield Source("live", documents, [])


def _document(found: dict[str, Any]) -> Document:
    metadata = found.get("metadata") or {}
    metadata.pop("managedFields", None)
    (metadata.get("annotations") or {}).pop(_LAST_APPLIED, None)
    return Document("live", of_plain(found), live=True)
