"""What the pages say to type in a cluster: jetkeep's commands parse, and names, paths and kinds are those of the manifests."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import click
import pytest
import yaml

from jetkeep.cli import root

ROOT = Path(__file__).parents[2]
KUSTOMIZE = ROOT / "deploy" / "kustomize"
PAGES = sorted(
    page
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if page.parent.name != "reference" and re.search(r"^kubectl |^jetkeep ", page.read_text(), re.MULTILINE)
)
#: Not ours: what the reader has beside jetkeep.
THEIRS = {"nats", "nack", "nats-box"}


def lines(page: Path) -> list[str]:
    """The commands of `sh` blocks, continued lines joined, comments and what stands for something taken away."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    joined = "\n".join(re.sub(r"<<'EOF'\n.*?\nEOF", "", block, flags=re.DOTALL) for block in blocks)
    joined = re.sub(r"(\\|\|)\n\s*", lambda found: "| " if found[1] == "|" else " ", joined)
    return [line.split(" #")[0].strip() for line in joined.splitlines() if line.strip() and line[0] != "#"]


def commands(page: Path, program: str) -> list[list[str]]:
    """Each call of a program, also behind a pipe or in `exec … --`."""
    parts = (part.strip() for line in lines(page) for part in re.split(r"\||&&|;| -- ", line))
    return [shlex.split(part)[1:] for part in parts if part.startswith(f"{program} ")]


def parses(words: list[str]) -> None:
    """Whether click takes this command line."""
    context = click.Context(root, **root.context_settings)
    command = root.get_command(context, words[0])
    assert command, f"there is no command {words[0]}"
    rest = [word for word in words[1:] if word != "…"]
    if isinstance(command, click.Group):
        command, rest = command.get_command(context, rest[0]), rest[1:]
        assert command, f"there is no command {' '.join(words[:2])}"
    command.make_context(words[0], rest, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_jetkeep_takes_every_command_line_of_the_page(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands(page, "jetkeep"):
        parses(words)
    for value in re.findall(r'`(\["\w+".*?\])`|"value": (\[.*?\])', page.read_text()):
        parses(json.loads(value[0] or value[1]))


@cache
def rendered() -> set[str]:
    """`kind/name` of everything in any overlay."""
    kubectl = Path(sys.executable).parent / "kubectl"
    if not kubectl.exists():
        pytest.skip("there is no kubectl")
    found = set()
    for overlay in sorted(KUSTOMIZE.glob("overlays/*")):
        done = subprocess.run([kubectl, "kustomize", overlay], capture_output=True, text=True, check=True)
        found |= {f"{one['kind']}/{one['metadata']['name']}".lower() for one in yaml.safe_load_all(done.stdout)}
    assert found
    return found


_KINDS = {"pvc": "persistentvolumeclaim", "deploy": "deployment", "secret": "secret", "configmap": "configmap"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_object_that_the_page_names_is_in_the_manifests(page: Path) -> None:
    if not KUSTOMIZE.exists():
        pytest.skip("the manifests are not in this checkout")
    for words in commands(page, "kubectl"):
        if words[:1] in (["apply"], ["delete"]) and "-k" in words:
            path = words[words.index("-k") + 1]
            assert not path.startswith("deploy/") or (ROOT / path / "kustomization.yaml").exists(), path
        if "-n" not in words or words[words.index("-n") + 1] in THEIRS:
            continue
        named = [word.removeprefix("--from=") for word in words if re.match(r"(--from=)?(cronjob|deploy\w*)/", word)]
        for at, word in enumerate(words[:-1]):
            if word in ("cronjob", "pvc", "configmap", "deployment") and not words[at + 1].startswith("-"):
                named.append(f"{word}/{words[at + 1]}")
        for one in named:
            kind, _, name = one.partition("/")
            assert f"{_KINDS.get(kind, kind)}/{name}" in rendered(), f"{one} in {' '.join(words)}"
