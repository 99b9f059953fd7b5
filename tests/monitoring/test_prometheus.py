"""The rules and the dashboard in a real Prometheus that scrapes a real `jetkeep metrics`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.backing_up import start
from tests.monitoring.manifests import MONITORING, RULES
from tests.monitoring.prometheus import Prometheus
from tests.monitoring.record import SCENARIOS, Site, site

DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text())
QUERIES = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]
GROUPS = yaml.safe_load(RULES.read_text())
#: What Grafana puts in: everything is chosen.
VARIABLES = {"source": ".*", "repository": ".*"}


def filled(query: str) -> str:
    return re.sub(r"\$(\w+)", lambda found: VARIABLES[found[1]], query)


@contextmanager
def watched(here: Site, rules: dict[str, Any], every: str = "1h") -> Iterator[Prometheus]:
    """A Prometheus that scrapes an exporter of this site."""
    exporter = start("metrics", "--ask-sources", "--listen", "127.0.0.1:0", "--every", every, repo="")
    try:
        assert exporter.stderr
        url = exporter.stderr.readline().split()[-1]
        with Prometheus(url.removeprefix("http://").removesuffix("/metrics"), rules) as prometheus:
            prometheus.until(lambda: prometheus.series("jetkeep_build_info and on () jetkeep:backup_age_seconds"))
            yield prometheus
    finally:
        exporter.terminate()
        exporter.wait(10)


def test_every_panel_and_every_rule_has_an_answer() -> None:
    with site() as here:
        here.work()
        with watched(here, GROUPS) as prometheus:
            # A forecast needs two points.
            prometheus.until(
                lambda: int(prometheus.series("count_over_time(jetkeep_build_info[1m])")[0]["value"][1]) > 2
            )
            silent = [title for title, query in QUERIES if not prometheus.series(filled(query))]
            assert silent == []
            for variable in DASHBOARD["templating"]["list"][1:]:
                metric, label = re.findall(r"label_values\((\w+), (\w+)\)", variable["definition"])[0]
                assert all(one["metric"][label] for one in prometheus.series(metric))
            for group in prometheus.ask("rules")["groups"]:
                assert [rule["lastError"] for rule in group["rules"] if rule["health"] != "ok"] == []
            for group in GROUPS["groups"]:
                for rule in group["rules"]:
                    prometheus.series(rule["expr"])
            assert prometheus.firing() == {}


def test_the_dashboard_shows_what_was_asked_for() -> None:
    text = " ".join(query for _, query in QUERIES)
    for part in (
        "jetkeep:backup_age_seconds", "jetkeep:backup_success:ratio_7d", "predict_linear(", "jetkeep:volume_used:ratio",
        "jetkeep:offsite_lag_seconds", "jetkeep_stream_lag_messages", "jetkeep_drill_last_success",
    ):  # fmt: skip
        assert part in text
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(taken) == len(set(taken)), "panels overlap"
    assert max(x for x, _ in taken) < 24


def test_the_kustomization_holds_rules_monitor_and_dashboard() -> None:
    kubectl = Path(sys.executable).parent / "kubectl"
    if not kubectl.exists():
        pytest.skip("there is no kubectl")
    done = subprocess.run([kubectl, "kustomize", MONITORING], capture_output=True, text=True, check=True)
    objects = {one["kind"]: one for one in yaml.safe_load_all(done.stdout)}
    assert {*objects} == {"ConfigMap", "PrometheusRule", "PodMonitor"}
    assert objects["ConfigMap"]["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(objects["ConfigMap"]["data"]["jetkeep.json"]) == DASHBOARD
    assert {one["metadata"]["namespace"] for one in objects.values()} == {"jetkeep"}


#: What is broken, and which alerts a real Prometheus shows for it.
BREAKAGE = {
    "backup-failed": {"JetkeepBackupFailed", "JetkeepSourceDown"},
    "store-down": {"JetkeepRepositoryDown"},
    "stale-offsite": {"JetkeepOffsiteStale"},
    "uncovered": {"JetkeepStreamUncovered"},
    "gap": {"JetkeepGapFound"},
    "damage": {"JetkeepDamageFound"},
    "drill-failed": {"JetkeepDrillFailed"},
    "volume-97": {"JetkeepVolumeFilling", "JetkeepVolumeFull"},
    "copy-failed": {"JetkeepRunFailed"},
}


@pytest.mark.slow
@pytest.mark.parametrize("scenario", BREAKAGE)
def test_what_is_broken_is_seen_in_a_real_prometheus(scenario: str) -> None:
    # Nobody waits 25 hours here; the test with promtool does.
    text = re.sub(r"\n +for: .*", "", RULES.read_text())
    rules = yaml.safe_load(text)
    for group in rules["groups"]:
        group["rules"] = [rule for rule in group["rules"] if rule.get("alert") != "JetkeepNeverDrilled"]
    with site() as here:
        SCENARIOS[scenario](here)
        with watched(here, rules) as prometheus:
            prometheus.until(lambda: {*prometheus.firing()} == BREAKAGE[scenario])
            for alert in prometheus.firing().values():
                words = " ".join(alert["annotations"].values())
                assert "<no value>" not in words
                assert "error" not in words
