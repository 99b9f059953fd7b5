"""A cluster, read through the official client by whoever the kubeconfig or the pod's service account says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from jetkeep.errors import ClusterError, UsageError

TIMEOUT_S = 10.0
_PAGE = 500
_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_DEFAULT_NAMESPACE = "jetkeep"


def in_a_pod() -> bool:
    """Whether this process may ask the cluster that it runs in: a pod with a service account's token."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (_POD / "token").is_file()


class Cluster:
    """Lists objects as they are; nothing is ever written.

    Attributes:
        namespace: the one that is looked at.
        unseen: what this user may not see, in words.
    """

    def __init__(self, client: Any, namespace: str) -> None:
        self._client = client
        self.namespace = namespace
        self.unseen: list[str] = []

    @classmethod
    def connect(cls, context: str | None = None, namespace: str | None = None) -> Cluster:
        """By the kubeconfig's context (its current one), or inside of a pod as its service account.

        Raises:
            UsageError: the client is not installed, or neither a kubeconfig nor a service account is there.
        """
        try:
            import urllib3  # noqa: PLC0415 - an extra, and slow to import; so are the others
            import yaml  # noqa: PLC0415
            from kubernetes import client, config  # noqa: PLC0415
            from kubernetes.config.config_exception import ConfigException  # noqa: PLC0415
        except ImportError:
            raise UsageError(
                "looking into a cluster needs the Kubernetes client, which is not installed",
                code="usage.extra",
                means="nothing was looked at",
                hint="install jetkeep[kubernetes]",
            ) from None
        settings = client.Configuration()
        found = ""
        try:
            if context is None and in_a_pod() and not os.environ.get("KUBECONFIG"):
                config.load_incluster_config(client_configuration=settings)
                found = (_POD / "namespace").read_text().strip()
            else:
                config.load_kube_config(context=context, client_configuration=settings)
                contexts, current = config.list_kube_config_contexts()
                chosen = next((one for one in contexts if one["name"] == context), current)
                found = str(chosen.get("context", {}).get("namespace", ""))
        except (ConfigException, OSError, yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as failure:
            raise UsageError(
                "there is no cluster to look into: neither a kubeconfig nor a pod's service account can be used",
                code="usage.kubeconfig",
                means="nothing was looked at",
                hint="set KUBECONFIG, or give --kube-context one of `kubectl config get-contexts`",
            ) from failure
        settings.retries = False
        # Whether certificates are checked is said in the kubeconfig; once said it is not for us to repeat at each request.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        return cls(client.ApiClient(settings), namespace or found or _DEFAULT_NAMESPACE)

    def objects(
        self, group: str, kind: str, *, namespace: str | None = None, selector: str = ""
    ) -> list[dict[str, Any]] | None:
        """All objects of a kind, such as `v1`, `pods`; None when there is no such kind, or this user may not see them.

        In the cluster's own namespace, another one, or (`""`) in all of them.

        Raises:
            ClusterError: the API server cannot be reached, or fails.
        """
        base = f"/api/{group}" if "/" not in group else f"/apis/{group}"
        inside = self.namespace if namespace is None else namespace
        path = f"{base}/namespaces/{inside}/{kind}" if inside else f"{base}/{kind}"
        found: list[dict[str, Any]] = []
        query: list[tuple[str, str]] = [("limit", str(_PAGE)), *([("labelSelector", selector)] if selector else [])]
        token = ""
        while True:
            status, body = self._get(path, [*query, *([("continue", token)] if token else [])])
            if status == 403:
                self.unseen.append(f"{kind} {f'in namespace {inside}' if inside else 'of the cluster'}")
                return None
            if status == 404:
                return None
            if status != 200 or body is None:
                raise ClusterError(f"the API server answered with status {status}", code="cluster.failed")
            listed = str(body.get("kind", "List")).removesuffix("List")
            version = body.get("apiVersion", group)
            found += [{"apiVersion": version, "kind": listed, **one} for one in body.get("items") or []]
            token = (body.get("metadata") or {}).get("continue") or ""
            if not token:
                return found

    def _get(self, path: str, query: list[tuple[str, str]]) -> tuple[int, dict[str, Any] | None]:
        import urllib3  # noqa: PLC0415 - comes with the client

        try:
            asked = self._client.param_serialize(
                "GET",
                path,
                query_params=query,
                header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"],
            )
            answer = self._client.call_api(*asked, _request_timeout=TIMEOUT_S)
            body = answer.read()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as failure:
            raise ClusterError(
                f"the cluster cannot be reached ({type(failure).__name__})",
                code="cluster.unreachable",
                means="nothing of it was looked at",
                hint="does `kubectl get namespaces` work with the same kubeconfig?",
            ) from None
        if answer.status == 401:
            raise ClusterError(
                "the cluster does not know this user", code="cluster.denied", hint="log in again; `kubectl auth whoami`"
            )
        try:
            document = json.loads(body) if body else None
        except ValueError:
            document = None
        return int(answer.status), document if isinstance(document, dict) else None
