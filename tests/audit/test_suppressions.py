"""What somebody accepts is quiet, with a reason, and only that."""

from __future__ import annotations

from pathlib import Path

from jetkeep.audit import Report, audit
from tests.audit.planting import CRONJOB, good


def look(folder: Path, text: str, file: str = "backup.yaml") -> Report:
    for name, other in {**good(), file: text}.items():
        (folder / name).write_text(other)
    return audit([str(folder)])


def ids(report: Report) -> list[str]:
    return [one.rule.id for one in report.findings]


BACKUP = CRONJOB.format(command="backup").replace("jetkeep:0.1.0", "jetkeep:latest")


def test_a_comment_in_the_line_with_a_reason_accepts_one_finding(tmp_path: Path) -> None:
    text = BACKUP.replace("jetkeep:latest", "jetkeep:latest  # jetkeep-audit: ignore JK021 a trial")
    report = look(tmp_path, text)
    assert ids(report) == []
    assert [(one.finding.rule.id, one.reason) for one in report.suppressed] == [("JK021", "a trial")]


def test_a_comment_above_accepts_what_is_below_it_and_no_more(tmp_path: Path) -> None:
    above = "          containers:\n            # jetkeep-audit: ignore JK017 it writes its cache\n"
    text = BACKUP.replace("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false")
    assert ids(look(tmp_path, text.replace("          containers:\n", above))) == ["JK021"]


def test_a_comment_above_a_document_is_for_the_whole_of_it(tmp_path: Path) -> None:
    assert ids(look(tmp_path, f"# jetkeep-audit: ignore JK021 a trial\n{BACKUP}")) == []


def test_an_annotation_is_for_its_object(tmp_path: Path) -> None:
    noted = "metadata:\n  annotations: {audit.jetkeep.io/ignore-JK021: a trial}\n"
    text = BACKUP.replace("metadata:\n", noted, 1)
    assert ids(look(tmp_path, text)) == []
    other = BACKUP.replace("name: jetkeep-backup", "name: other")
    assert ids(look(tmp_path, f"{text}---\n{other}")) == ["JK021"]


def test_a_comment_inside_of_an_embedded_configuration_counts(tmp_path: Path) -> None:
    text = good()["config.yaml"].replace("keep = { daily = 7 }", "# nothing", 1)
    assert ids(look(tmp_path, text, "config.yaml")) == ["JK022"]
    text = text.replace("[repositories.local]", "# jetkeep-audit: ignore JK022 kept by hand\n    [repositories.local]")
    assert ids(look(tmp_path, text, "config.yaml")) == []


def test_without_a_reason_it_accepts_nothing_and_is_told(tmp_path: Path) -> None:
    text = BACKUP.replace("jetkeep:latest", "jetkeep:latest  # jetkeep-audit: ignore JK021")
    assert sorted(ids(look(tmp_path, text))) == ["JK021", "JK090"]


def test_one_without_use_is_told(tmp_path: Path) -> None:
    report = look(tmp_path, f"# jetkeep-audit: ignore JK012 of old\n{CRONJOB.format(command='backup')}")
    assert [(one.rule.id, one.place.line) for one in report.findings] == [("JK091", 1)]


def test_one_for_a_rule_that_does_not_exist_is_told(tmp_path: Path) -> None:
    report = look(tmp_path, f"# jetkeep-audit: ignore JK777 of old\n{CRONJOB.format(command='backup')}")
    assert ids(report) == ["JK090"]
