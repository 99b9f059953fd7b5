"""Each alert fires when what it watches is broken, and is silent when it is not: promtool, over series of real runs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.manifests import MONITORING, PRODUCT, RULES, render
from tests.monitoring.record import RECORDED, SCENARIOS

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
RULE_GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = [rule for group in RULE_GROUPS for rule in group["rules"] if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})
RECORDS = {rule["record"] for group in RULE_GROUPS for rule in group["rules"] if "record" in rule}
DAY = 24
LINE = re.compile(r"^(\w+)(\{.*\})? (\S+)$")
EVALUATION = {
    "rule_files": [str(RULES)],
    "evaluation_interval": "1h",
    "group_eval_order": [group["name"] for group in RULE_GROUPS],
}
#: What fires when nothing has happened for so many hours since the recording.
FIRING: Mapping[str, Mapping[int, Sequence[str]]] = {
    "healthy": {
        0: [], 1: [], 24: [],
        26: ["BackupOverdue"],
        49: ["BackupMissing", "BackupOverdue"],
        8 * DAY - 1: ["BackupMissing", "BackupOverdue"],
        9 * DAY: ["BackupMissing", "BackupOverdue", "DrillOverdue"],
    },
    "backup-failed": {0: ["BackupFailed"], 1: ["BackupFailed", "SourceDown"]},
    "store-down": {0: [], 2: ["RepositoryDown"]},
    "required-store-down": {0: [], 1: ["RepositoryDown"]},
    "stale-offsite": {0: ["OffsiteStale"], 24: ["OffsiteStale"]},
    "no-backup": {0: [], 24: ["RepositoryDown"], 26: ["NoBackup", "RepositoryDown", "StreamUncovered"]},
    "uncovered": {0: [], 24: [], 26: ["BackupOverdue", "StreamUncovered"]},
    "gap": {0: ["GapFound"], 24: ["GapFound"]},
    "damage": {0: ["DamageFound"], 24: ["DamageFound"]},
    "drill-failed": {0: ["DrillFailed"], 24: ["DrillFailed"]},
    "drill-broken": {0: ["DrillFailed"], 24: ["DrillFailed"]},
    "never-drilled": {0: [], 24: [], 9 * DAY: ["BackupMissing", "BackupOverdue", "NeverDrilled"]},
    "copy-failed": {0: ["RunFailed"], 24: ["RunFailed"]},
    "volume-85": {0: [], 1: ["VolumeFilling"], 24: ["VolumeFilling"]},
    "volume-97": {0: ["VolumeFull"], 1: ["VolumeFilling", "VolumeFull"]},
    "agent-refused": {0: [], 1: ["AgentConfigRefused"]},
    "absent": {0: [], 1: ["MetricsAbsent"]},
}  # fmt: skip


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    return subprocess.run([program, *words], capture_output=True, text=True, check=False)


def series(scenario: str) -> list[tuple[str, float]]:
    """What was recorded; moments are seconds after the recording, because promtool's time begins at 0."""
    if scenario == "absent":
        return []
    head, *lines = (RECORDED / f"{scenario}.prom").read_text().splitlines()
    when, found = float(head.removeprefix("# ")), []
    for line in lines:
        name, labels, figure = LINE.findall(line)[0]
        found.append((name + labels, float(figure) - (when if name.endswith("_timestamp_seconds") else 0)))
    return found


def unit(scenario: str) -> dict[str, Any]:
    """promtool's test of a scenario: exactly these alerts, at each of these hours."""
    firing = FIRING[scenario]
    steps = max(firing) + 1
    return {
        "name": scenario,
        "interval": "1h",
        "input_series": [{"series": name, "values": f"{figure:.3f}+0x{steps}"} for name, figure in series(scenario)],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{hours}h",
                "exp_samples": [{"labels": f'{{alertname="Jetkeep{name}"}}', "value": 1} for name in names],
            }
            for hours, names in firing.items()
        ],
    }


def test_each_alert_fires_when_it_should_and_no_other_does(tmp_path: Path) -> None:
    suite = tmp_path / "alerts.yaml"
    tests = [unit(scenario) for scenario in FIRING]
    suite.write_text(yaml.safe_dump(EVALUATION | {"tests": tests}))
    done = promtool("test", "rules", suite)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_seen_to_fire_and_each_recording_is_used() -> None:
    assert {f"Jetkeep{one}" for at in FIRING.values() for names in at.values() for one in names} == set(NAMES)
    assert {*FIRING} == {*SCENARIOS, "absent"}
    assert {one.stem for one in RECORDED.glob("*.prom")} == {*SCENARIOS}


def test_the_slis_are_the_figures_of_the_runs(tmp_path: Path) -> None:
    """As they stood in the recording: one good backup at once before it, and a drill."""
    recorded = dict(series("healthy"))
    wanted = {
        "jetkeep:backup_success:ratio_7d": 1,
        "jetkeep:rto_seconds": recorded['jetkeep_drill_rto_seconds{repository="local"}'],
        "jetkeep:rpo_seconds": 0,
        "jetkeep:offsite_lag_seconds": 0,
        "round(jetkeep:backup_age_seconds, 60)": 3600,
        "round(jetkeep:volume_used:ratio, 0.01)": 0,
    }
    assert {one for one in RECORDS if any(one in expression for expression in wanted)} == RECORDS
    test = unit("healthy") | {
        "promql_expr_test": [
            {"expr": f"max({one})", "eval_time": "1h", "exp_samples": [{"value": value}]}
            for one, value in wanted.items()
        ]
    }
    suite = tmp_path / "slis.yaml"
    suite.write_text(yaml.safe_dump(EVALUATION | {"tests": [test]}))
    done = promtool("test", "rules", suite)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_right_for_prometheus() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_operator_s_rules_are_the_same() -> None:
    assert PRODUCT.read_text() == render(), "run `python -m tests.monitoring.manifests`"
    product = yaml.safe_load(PRODUCT.read_text())
    assert product["kind"] == "PrometheusRule"
    assert product["spec"] == {"groups": RULE_GROUPS}


def test_every_figure_that_a_rule_asks_for_exists() -> None:
    told = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    recorded = {
        LINE.findall(line)[0][0]
        for file in RECORDED.glob("*.prom")
        for line in file.read_text().splitlines()
        if not line.startswith("#")
    }
    asked = set(re.findall(r"\bjetkeep_\w+", RULES.read_text()))
    assert asked <= recorded
    assert "jetkeep_" in told


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert {*rule["annotations"]} == {"summary", "description", "runbook_url"}
    page = ROOT / rule["annotations"]["runbook_url"]
    assert page == RUNBOOKS / f"{rule['alert']}.md"
    text = page.read_text()
    assert text.startswith(f"# {rule['alert']}\n")
    for part in ("**Data at risk:**", "## First", "## Causes", "**Wake somebody:**"):
        assert part in text, part
    commands = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)[0].splitlines()
    assert len(commands) >= 3
    assert rule["labels"]["severity"] in text


def test_there_is_no_runbook_without_an_alert() -> None:
    assert sorted(page.stem for page in RUNBOOKS.glob("*.md")) == NAMES


def test_the_folder_holds_what_the_page_names() -> None:
    page = (ROOT / "docs" / "how-to" / "monitor.md").read_text()
    for file in MONITORING.iterdir():
        assert file.name in page, file.name
