"""Whatever is in a file, an audit ends soon, with its name and a reason, and has looked at the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from jetkeep.audit import Report, audit
from jetkeep.errors import UsageError
from tests.audit.planting import good


def look(folder: Path, raw: bytes, name: str = "hostile.yaml") -> Report:
    (folder / name).write_bytes(raw)
    (folder / "z.yaml").write_text(good()["backup.yaml"].replace("jetkeep:0.1.0", "jetkeep:latest"))
    return audit([str(folder)])


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{at}: &a{at} [*a{at - 1}]\n" for at in range(1, 3000))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        pytest.param(BOMB.encode(), "aliases", id="aliases that stand for 10^9 values"),
        pytest.param(CHAIN.encode(), "aliases", id="aliases three thousand deep"),
        pytest.param(b"a: &a [*a]\n", "contains itself", id="an alias of itself"),
        pytest.param(b"[" * 100_000, "nested", id="brackets 100,000 deep"),
        pytest.param(b"- " * 100_000, "nested", id="dashes 100,000 deep"),
        pytest.param(b"a: b\0c", "binary", id="binary"),
        pytest.param(b"\x7fELF\x80\x81", "UTF-8", id="no text"),
        pytest.param(b"a: [1, 2\nb: 3\n", "no YAML in line 2", id="broken"),
        pytest.param(b"a: *nowhere\n", "no YAML", id="an alias of nothing"),
        pytest.param(b"a: \x1b[31m\n", "no YAML", id="a terminal's control characters"),
        pytest.param(b"x: y\n" * 4_000_000, "larger than", id="20 MB"),
        pytest.param(b"name: {{ .Release.Name }}\n{{- if a }}\n", "template", id="a template"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_the_others_are_looked_at(tmp_path: Path, raw: bytes, why: str) -> None:
    report = look(tmp_path, raw)
    [(name, error)] = report.unread
    assert name.endswith("hostile.yaml")
    assert why in error.what
    assert error.hint
    assert "JK021" in {one.rule.id for one in report.findings}


def test_of_a_huge_file_only_the_beginning_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(100 * 2**20)
    report = look(tmp_path, b"a: b")
    assert "larger than" in report.unread[0][1].what


@pytest.mark.parametrize(
    "raw",
    [b"", b"---\n---\n", b"- 1\n- 2\n", b"just words\n", b"!custom {a: 1}\n", b"? [a, b]\n: c\n", b"kind: [1]\nmetadata: 7\n", b"kind: CronJob\nspec: x\n", b"kind: Secret\ndata: {a: '%%%'}\n", b"<<: &a {kind: Pod}\n", b"kind: List\nitems: [1, {kind: Pod}]\n", b"a: 2026-99-99\nb: 1_0:99\n", b"{\n\t\"kind\": \"Pod\"\n}\n"],
)  # fmt: skip
def test_odd_documents_do_no_harm(tmp_path: Path, raw: bytes) -> None:
    report = look(tmp_path, raw, "odd.json" if b"\t" in raw else "odd.yaml")
    assert report.unread == []


def test_a_loop_of_links_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(tmp_path)
    report = look(tmp_path, b"a: b")
    assert report.files == 2


def test_a_chart_s_templates_are_left_out_and_said_so(tmp_path: Path) -> None:
    (tmp_path / "Chart.yaml").write_text("name: x\n")
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "a.yaml").write_text("{{ a }}")
    report = look(tmp_path, b"a: b")
    assert report.unread == []
    assert any("helm template" in one for one in report.notices)


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_nothing_to_look_at_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as told:
        audit([name])
    assert told.value.code == "audit.nothing"


def test_a_text_full_of_secrets_is_told_of_and_not_for_ever(tmp_path: Path) -> None:
    keys = "".join(f"    AKIA{at:016}\n" for at in range(100_000))
    report = look(tmp_path, f"kind: ConfigMap\ndata:\n  keys: |\n{keys}".encode())
    assert sum(one.rule.id == "JK001" for one in report.findings) == 100
