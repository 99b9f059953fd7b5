"""The command as people and machines call it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from jetkeep.audit import RULES
from tests.audit.planting import CRONJOB, good

LATEST = CRONJOB.format(command="backup").replace("jetkeep:0.1.0", "jetkeep:latest")
#: What SARIF 2.1.0 requires of the parts that are used here (its own schema has 3,400 lines).
SARIF: dict[str, Any] = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "$schema": {"type": "string", "format": "uri"},
        "version": {"const": "2.1.0"},
        "runs": {"type": "array", "items": {"$ref": "#/$defs/run"}},
    },
    "additionalProperties": False,
    "$defs": {
        "text": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}},
        "level": {"enum": ["none", "note", "warning", "error"]},
        "run": {
            "type": "object",
            "required": ["tool", "results"],
            "properties": {
                "tool": {"type": "object", "required": ["driver"], "properties": {"driver": {"$ref": "#/$defs/driver"}}},
                "results": {"type": "array", "items": {"$ref": "#/$defs/result"}},
                "invocations": {"type": "array", "items": {"type": "object", "required": ["executionSuccessful"]}},
            },
            "additionalProperties": False,
        },
        "driver": {
            "type": "object",
            "required": ["name", "rules"],
            "properties": {
                "semanticVersion": {"pattern": r"^\d+\.\d+\.\d+"},
                "rules": {
                    "type": "array",
                    "uniqueItems": True,
                    "items": {
                        "type": "object",
                        "required": ["id"],
                        "properties": {
                            "id": {"type": "string"},
                            "shortDescription": {"$ref": "#/$defs/text"},
                            "fullDescription": {"$ref": "#/$defs/text"},
                            "help": {"$ref": "#/$defs/text"},
                            "defaultConfiguration": {"properties": {"level": {"$ref": "#/$defs/level"}}},
                        },
                    },
                },
            },
        },
        "result": {
            "type": "object",
            "required": ["message"],
            "properties": {
                "ruleId": {"enum": list(RULES)},
                "ruleIndex": {"type": "integer", "minimum": 0, "maximum": len(RULES) - 1},
                "level": {"$ref": "#/$defs/level"},
                "message": {"$ref": "#/$defs/text"},
                "locations": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "physicalLocation": {
                                "required": ["artifactLocation"],
                                "properties": {"region": {"properties": {"startLine": {"type": "integer", "minimum": 1}}}},
                            }
                        },
                    },
                },
                "suppressions": {
                    "items": {"required": ["kind"], "properties": {"kind": {"enum": ["inSource", "external"]}}},
                },
            },
            "additionalProperties": False,
        },
    },
}  # fmt: skip


def run(*words: str, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jetkeep", "audit", *words]
    return subprocess.run(command, input=stdin, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {**good(), "backup.yaml": LATEST}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_text_names_file_line_why_and_fix_and_the_status_says_that_a_rule_is_broken(folder: Path) -> None:
    told = run(".", cwd=folder)
    line = LATEST.splitlines().index("              image: jetkeep:latest") + 1
    assert told.returncode == 30
    assert f"JK021 backup.yaml:{line} (CronJob jetkeep/jetkeep-backup)" in told.stdout
    assert "why:" in told.stdout
    assert "fix:" in told.stdout


def test_clean_files_end_with_0(folder: Path) -> None:
    (folder / "backup.yaml").write_text(good()["backup.yaml"])
    told = run(".", cwd=folder)
    assert (told.returncode, told.stdout) == (0, "nothing found; 0 suppressed (5 files, 5 objects)\n")


def test_the_severity_that_fails_can_be_chosen(folder: Path) -> None:
    assert run(str(folder), "--fail-on", "error").returncode == 0


def test_standard_input_is_a_file_like_others(folder: Path) -> None:
    told = run("-", "--json", stdin=LATEST)
    found = json.loads(told.stdout)
    assert found["schema"] == "jetkeep.audit/1"
    assert "JK021" in {one["rule"] for one in found["findings"]}
    assert {one["file"] for one in found["findings"]} == {"-"}


def test_what_cannot_be_read_ends_with_2_for_it_may_hide_something(folder: Path) -> None:
    (folder / "backup.yaml").write_text("a: [")
    (folder / "backup2.yaml").write_text(good()["backup.yaml"])
    told = run(str(folder))
    assert told.returncode == 2
    assert "audit.unreadable" in told.stdout
    assert "Traceback" not in told.stderr


def test_sarif_is_what_the_standard_requires(folder: Path) -> None:
    (folder / "more.yaml").write_text(f"# jetkeep-audit: ignore JK021 a trial\n{LATEST}")
    (folder / "broken.yaml").write_text("a: [")
    told = run(".", "--format", "sarif", cwd=folder)
    document = json.loads(told.stdout)
    jsonschema.validate(document, SARIF)
    [found, accepted] = document["runs"][0]["results"]
    rules = document["runs"][0]["tool"]["driver"]["rules"]
    assert rules[found["ruleIndex"]]["id"] == found["ruleId"] == "JK021"
    assert found["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "backup.yaml"
    assert accepted["suppressions"][0]["justification"] == "a trial"
    assert document["runs"][0]["invocations"][0]["executionSuccessful"] is False


@pytest.mark.parametrize("words", [[], ["--live", "x.yaml"]])
def test_either_files_or_a_cluster(words: list[str]) -> None:
    told = run(*words)
    assert told.returncode == 2
    assert "[usage.audit]" in told.stderr


def test_without_the_extra_a_cluster_cannot_be_looked_at_and_files_can(folder: Path) -> None:
    code = "import sys; sys.modules['kubernetes'] = None; from jetkeep.cli import main; sys.argv[0] = 'jetkeep'; main()"
    live = subprocess.run([sys.executable, "-c", code, "audit", "--live"], capture_output=True, text=True, check=False)
    assert live.returncode == 2
    assert "[usage.extra]" in live.stderr
    assert "jetkeep[kubernetes]" in live.stderr
    files = subprocess.run(
        [sys.executable, "-c", code, "audit", str(folder)], capture_output=True, text=True, check=False
    )
    assert files.returncode == 30
