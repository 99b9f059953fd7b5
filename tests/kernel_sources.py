"""The kernels' sources, and how a test gets one interpreted."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import jetkeep.codecs.kernels

FOLDER = Path(jetkeep.codecs.kernels.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("_*.py") if "SOURCE_DIGEST" in path.read_text())
_MARK = re.compile(r'^SOURCE_DIGEST = "([0-9a-f]{64})"$', re.MULTILINE)


def interpreted(name: str) -> ModuleType:
    """The kernel's source run by the interpreter, whatever was compiled."""
    spec = importlib.util.spec_from_file_location(f"interpreted{name}", FOLDER / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not module.COMPILED
    return module


def stated_and_true_digest(name: str) -> tuple[str, str]:
    """What the source says its digest is, and what it is."""
    text = (FOLDER / f"{name}.py").read_text()
    found = _MARK.search(text)
    assert found
    blank = text.replace(found[1], "0" * 64, 1)
    return found[1], hashlib.sha256(blank.encode()).hexdigest()
