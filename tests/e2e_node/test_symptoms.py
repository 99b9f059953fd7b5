"""What a pod or a Job says when it does not run: each row of the last table of troubleshoot.md, on a real node."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.docs.test_troubleshoot import PAGE
from tests.e2e_node.site import Site
from tests.kube import image

pytestmark = pytest.mark.e2e_node

NAMESPACE = "symptoms"
#: The words of the page's first column that a cluster says, and of which object of this test it says them.
SAID = {
    "unbound immediate PersistentVolumeClaims": "unbound",
    "waiting for first consumer to be created before binding": "waiting",
    "didn't match PersistentVolume's node affinity": "elsewhere",
    "CreateContainerConfigError": "no-secret",
    'secret "…" not found': "no-secret",
    "ErrImagePull": "no-image",
    "ImagePullBackOff": "no-image",
    "OOMKilled": "hungry",
    "DeadlineExceeded": "late",
    "BackoffLimitExceeded": "failing",
    'violates PodSecurity "restricted:…"': "rude",
}


def _pod(name: str, **container: Any) -> dict[str, Any]:
    """A pod that sleeps; `claim` is mounted."""
    claim = container.pop("claim", None)
    made = {"name": "c", "image": "localhost/pause:1", **container}
    spec: dict[str, Any] = {"restartPolicy": "Never", "containers": [made]}
    if claim:
        spec["volumes"] = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]
    return _object("v1", "Pod", name, spec=spec)


def _claim(name: str, storage_class: str) -> dict[str, Any]:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": "1Mi"}},
    }
    return _object("v1", "PersistentVolumeClaim", name, spec=spec)


def _job(name: str, command: list[str], **spec: Any) -> dict[str, Any]:
    pod = _pod(name, command=command)["spec"]
    return _object("batch/v1", "Job", name, spec={"backoffLimit": 0, **spec, "template": {"spec": pod}})


def _object(version: str, kind: str, name: str, **rest: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **rest}


def _volume_of_a_lost_node() -> dict[str, Any]:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["lost-node"]}
    spec = {
        "capacity": {"storage": "1Mi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "gone",
        "claimRef": {"namespace": NAMESPACE, "name": "elsewhere"},
        "local": {"path": "/var/lib/elsewhere"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
    }
    return _object("v1", "PersistentVolume", "elsewhere", spec=spec)


@pytest.fixture(scope="module")
def told(site: Site) -> Iterator[dict[str, str]]:
    """By object, all that the cluster says of it: events, states, refusals."""
    cluster = site.cluster
    cluster.start_node()
    cluster.load(image.pause())
    cluster.apply(json.dumps(_object("v1", "Namespace", NAMESPACE)))
    broken = [
        _claim("unbound", "nowhere"), _pod("unbound", claim="unbound"),
        _claim("waiting", "local-path"),
        _volume_of_a_lost_node(), _claim("elsewhere", "gone"), _pod("elsewhere", claim="elsewhere"),
        _pod("no-secret", envFrom=[{"secretRef": {"name": "jetkeep-credentials"}}]),
        _pod("no-image", image="localhost/nobody-built-this:1"),
        _pod("hungry", command=["tail", "/dev/zero"], resources={"limits": {"memory": "24Mi"}}),
        _job("late", ["sleep", "1000"], activeDeadlineSeconds=2),
        _job("failing", ["false"]),
    ]  # fmt: skip
    cluster.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": broken}))
    strict = ["label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted"]
    cluster.kubectl(*strict)
    rude = cluster.kubectl("apply", "-f", "-", stdin=json.dumps(_pod("rude")), check=False).stderr

    def everything() -> dict[str, str]:
        found = {"rude": rude}
        for kind in ("events", "pods", "jobs"):
            for one in cluster.get(kind, NAMESPACE)["items"]:
                name = one.get("involvedObject", one["metadata"])["name"]
                name = next((known for known in SAID.values() if name.startswith(known)), name)
                found[name] = found.get(name, "") + json.dumps(one, ensure_ascii=False)
        return found

    def all_of_it() -> dict[str, str] | None:
        found = everything()
        return found if all(said(words)(found.get(name, "")) for words, name in SAID.items()) else None

    try:
        yield cluster.wait("the symptoms", all_of_it, 120)
    except TimeoutError:
        yield everything()
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    cluster.kubectl("delete", "persistentvolume", "elsewhere", "--wait=false")


def said(words: str) -> Callable[[str], object]:
    """Finds words in which `…` stands for anything."""
    pattern = re.compile(".*?".join(re.escape(part) for part in words.replace('"', '\\"').split("…")))
    plain = re.compile(".*?".join(re.escape(part) for part in words.split("…")))
    return lambda text: pattern.search(text) or plain.search(text)


@pytest.mark.parametrize("words", SAID)
def test_a_real_cluster_says_the_page_s_words(words: str, told: dict[str, str]) -> None:
    assert words in PAGE.read_text()
    assert said(words)(told.get(SAID[words], "")), told.get(SAID[words])


def test_the_page_names_no_other_words_of_a_cluster() -> None:
    table = PAGE.read_text().partition("## The Job or the pod")[2]
    first = " ".join(row.split("|")[1] for row in table.splitlines() if row.startswith("| "))
    # Not of this release, or of what is not here: a disk that two nodes want, helm, Velero (tests/e2e_velero).
    ours = {"Pending", "helm install --wait", "Completed", "Multi-Attach error", "had volume node affinity conflict"}
    assert set(re.findall(r"`([^`]+)`", first)) - ours == set(SAID)
