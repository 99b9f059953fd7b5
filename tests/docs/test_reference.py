"""What the reference pages say and what the code does are the same."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from jetkeep.cli import COMMANDS, root
from jetkeep.errors import JetkeepError
from jetkeep.restore.checks import _WHY as CAUSES_OF_LOSS
from tests.docs.commands_reference import PAGE, help_of, render

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
#: Codes of errors about what was to be stored, and about a reader's own arguments.
_NOT_FOUND_BY_VERIFY = {"manifest-size", "created"}
SOURCE = "\n".join(one.read_text() for one in sorted((ROOT / "src").rglob("*.py")))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_examples_that_call_it(name: str) -> None:
    lines = examples_of(name)
    assert lines
    assert all(f"jetkeep {name}" in line for line in lines)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_a_command_line_that_parses(name: str) -> None:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    for line in examples_of(name):
        words = shlex.split(line.partition(" > ")[0])
        command.make_context(name, words[words.index(name) + 1 :])


def examples_of(name: str) -> list[str]:
    _, _, examples = help_of(name).partition("Examples:\n")
    return [line.strip() for line in examples.split("\n\n")[0].splitlines()]


def test_the_page_of_commands_is_up_to_date() -> None:
    assert PAGE.exists(), "run `python -m tests.docs.commands_reference`"
    assert PAGE.read_text() == render(), "run `python -m tests.docs.commands_reference`"


def test_the_help_of_the_real_program_lists_every_command() -> None:
    told = subprocess.run([sys.executable, "-m", "jetkeep", "--help"], capture_output=True, text=True, check=True)
    for name in COMMANDS:
        assert re.search(rf"^  {name} +\S", told.stdout, re.MULTILINE)
    assert told.stderr == ""


def test_help_imports_nothing_heavy() -> None:
    heavy = ("pyarrow", "nats", "asyncio", "zstandard", "msgspec", "rich")
    code = f"import sys, jetkeep.cli; print([one for one in {heavy!r} if one in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_every_json_schema_is_documented_and_no_other() -> None:
    written = set(re.findall(r'"(jetkeep\.[a-z-]+/\d+)"', SOURCE))
    documented = set(re.findall(r"`(jetkeep\.[a-z-]+/\d+)`", (REFERENCE / "json.md").read_text()))
    documented |= set(re.findall(r"`(jetkeep\.[a-z-]+/\d+)`", (REFERENCE / "evidence.md").read_text()))
    assert written == documented


def test_every_exit_status_is_documented_and_no_other() -> None:
    page = (REFERENCE / "exit-status.md").read_text()
    documented = {int(one) for one in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert documented == {0, *(one.exit_status for one in _tree(JetkeepError))}


def test_every_error_code_in_the_docs_exists() -> None:
    pages = [REFERENCE / "exit-status.md", ROOT / "docs" / "how-to" / "troubleshoot.md"]
    named = {one for page in pages for one in re.findall(r"[`\[]([a-z]+\.[a-z-]+)[`\]]", page.read_text())}
    assert len(named) > 20
    known = set(re.findall(r'"([a-z]+\.[a-z-]+)"', SOURCE)) | {f"data.{one}" for one in finding_kinds()}
    known |= {f"restore.loss-{one.replace('_', '-')}" for one in CAUSES_OF_LOSS}
    assert not named - known


def test_every_kind_of_finding_is_documented_and_no_other() -> None:
    page = (REFERENCE / "findings.md").read_text()
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE))
    assert documented == finding_kinds() | {"unnamed", "unreadable", "lost-part"}


def finding_kinds() -> set[str]:
    """What can follow `data.` in the code of an error about a stored object."""
    source = _source("repository", "catalog.py", "verify.py", "codecs/sequences.py")
    coded = set(re.findall(r'code="data\.([a-z-]+)"', source))
    given = set(re.findall(r'damaged\((?:[^()]|\([^()]*\))*, "([a-z-]+)"\)', source))
    computed = set(re.findall(r'"(count|order|fingerprint|mismatch)": \(', source))
    return (coded | given | computed) - _NOT_FOUND_BY_VERIFY


def _source(*names: str) -> str:
    paths = [ROOT / "src" / "jetkeep" / name for name in names]
    files = [one for path in paths for one in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    return "\n".join(one.read_text() for one in files)


def _tree(kind: type[JetkeepError]) -> list[type[JetkeepError]]:
    return [kind, *(one for child in kind.__subclasses__() for one in _tree(child))]


def test_every_link_between_pages_leads_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
