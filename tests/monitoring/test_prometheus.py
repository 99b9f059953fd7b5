"""The rules and the dashboard in a real Prometheus that scrapes a real `jetkeep metrics`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.backing_up import run, start
from tests.monitoring.manifests import MONITORING, RULES
from tests.monitoring.prometheus import Prometheus
from tests.monitoring.record import SCENARIOS, Site, refusing_agent, shifted, site

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
            prometheus.until(lambda: prometheus.series("jetkeep_build_info"))
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


def overdue(here: Site, hours: int) -> None:
    """A backup so many hours ago, and a drill nine days ago: made by a clock that stood there."""
    here.offsite = str(here.folder / "volume" / "offsite")  # a bucket refuses a clock that is wrong
    here.write()
    with shifted(here, -9 * 24):
        here.backup()
        run("drill", "--next-due", "8", "--repo", "local", repo="")
    with shifted(here, -hours):
        here.backup()


#: What is broken, and which alerts a real Prometheus shows for it.
BREAKAGE: dict[str, tuple[Callable[[Site], None], set[str]]] = {
    "the server is gone": (SCENARIOS["backup-failed"], {"BackupFailed", "SourceDown"}),
    "the store is gone": (SCENARIOS["store-down"], {"RepositoryDown"}),
    "the required store is gone": (SCENARIOS["required-store-down"], {"RepositoryDown"}),
    "the bucket lags": (SCENARIOS["stale-offsite"], {"OffsiteStale"}),
    "a stream is new": (SCENARIOS["uncovered"], {"StreamUncovered"}),
    "there is a gap": (SCENARIOS["gap"], {"GapFound"}),
    "a file is damaged": (SCENARIOS["damage"], {"DamageFound"}),
    "a drill missed its target": (SCENARIOS["drill-failed"], {"DrillFailed"}),
    "a drill found nothing": (SCENARIOS["drill-broken"], {"DrillFailed"}),
    "nobody drills": (SCENARIOS["never-drilled"], {"NeverDrilled"}),
    "the volume fills": (SCENARIOS["volume-85"], {"VolumeFilling"}),
    "the volume is full": (SCENARIOS["volume-97"], {"VolumeFilling", "VolumeFull"}),
    "a copy failed": (SCENARIOS["copy-failed"], {"RunFailed"}),
    "one night was missed": (lambda here: overdue(here, 26), {"BackupOverdue", "DrillOverdue"}),
    "two nights were missed": (lambda here: overdue(here, 49), {"BackupOverdue", "BackupMissing", "DrillOverdue"}),
    "there is no backup": (
        SCENARIOS["no-backup"], {"NoBackup", "NeverDrilled", "RepositoryDown", "StreamUncovered"},
    ),
}  # fmt: skip


def impatient() -> dict[str, Any]:
    """The rules without `for`: nobody waits 25 hours here; the test with promtool does."""
    rules: dict[str, Any] = yaml.safe_load(re.sub(r"\n +for: .*", "", RULES.read_text()))
    return rules


def fires(prometheus: Prometheus, names: set[str]) -> None:
    wanted = {f"Jetkeep{name}" for name in names}
    prometheus.until(lambda: {*prometheus.firing()} == wanted)
    for alert in prometheus.firing().values():
        words = " ".join(alert["annotations"].values())
        assert "<no value>" not in words
        assert "error" not in words


@pytest.mark.slow
@pytest.mark.parametrize("what", BREAKAGE)
def test_what_is_broken_is_seen_in_a_real_prometheus(what: str) -> None:
    breaking, names = BREAKAGE[what]
    with site() as here:
        breaking(here)
        with watched(here, impatient()) as prometheus:
            fires(prometheus, names)


@pytest.mark.slow
def test_a_refused_configuration_is_seen_in_a_real_prometheus_and_an_agent_that_is_gone() -> None:
    with site() as here:
        here.work()
        with refusing_agent(here) as (address, agent), Prometheus(address, impatient()) as prometheus:
            fires(prometheus, {"AgentConfigRefused"})
            agent.terminate()
            agent.wait(20)
            fires(prometheus, {"MetricsAbsent"})


def test_every_alert_is_among_those_that_are_seen() -> None:
    seen = {name for _, names in BREAKAGE.values() for name in names} | {"AgentConfigRefused", "MetricsAbsent"}
    assert {f"Jetkeep{name}" for name in seen} == {
        rule["alert"] for group in GROUPS["groups"] for rule in group["rules"] if "alert" in rule
    }
