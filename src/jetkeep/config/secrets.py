"""Where a secret stands: in a file, a variable, or the setting itself, as the official CLI's contexts name it."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from jetkeep.errors import UsageError

_VARIABLE = re.compile(r"\$(?:\{([^}]*)\}|(\w+))")


def expand(path: str, environ: Mapping[str, str]) -> str:
    """`$NAME` and `${NAME}` (empty when unset), and `~` at the beginning, as the official CLI expands them."""
    expanded = _VARIABLE.sub(lambda found: environ.get(found[1] or found[2] or "", ""), path)
    if expanded.startswith("~"):
        return (environ.get("HOME") or str(Path.home())) + expanded[1:]
    return expanded


def file_path(reference: str, setting: str, environ: Mapping[str, str]) -> str:
    """The path that a bare or `file://` reference means.

    Raises:
        UsageError: it is another kind of reference, or there is no such file.
    """
    kind = _scheme(reference)
    if kind not in ("", "file"):
        raise UsageError(
            f"{setting} cannot be a {kind}: reference",
            code="usage.secret",
            hint="TLS files are given by their path",
        )
    path = Path(expand(_without(reference, "file://"), environ))
    if not path.is_file():
        raise UsageError(f"{setting}: there is no file {path}", code="usage.secret", hint="check the path")
    return str(path)


def content(reference: str, setting: str, environ: Mapping[str, str]) -> str:
    """The text that a reference to a file means; a bare value is a path.

    Raises:
        UsageError: it cannot be resolved. The message never holds the secret.
    """
    if _scheme(reference) in ("", "file"):
        path = file_path(reference, setting, environ)
        try:
            return Path(path).read_text()
        except (OSError, UnicodeDecodeError) as failure:
            raise UsageError(f"{setting}: cannot read {path}: {failure}", code="usage.secret") from None
    return _resolve(reference, setting, environ)


def literal(reference: str, setting: str, environ: Mapping[str, str]) -> str:
    """The text of a setting that may be the secret itself, or a reference with a known scheme.

    Raises:
        UsageError: the reference cannot be resolved. The message never holds the secret.
    """
    if _scheme(reference) not in ("file", "env", "data", "op", "nsc"):
        return reference
    return content(reference, setting, environ).rstrip("\r\n")


def _resolve(reference: str, setting: str, environ: Mapping[str, str]) -> str:
    kind = _scheme(reference)
    if kind == "env":
        name = _without(reference, "env://")
        if value := environ.get(name):
            return value
        raise UsageError(f"{setting}: the variable {name} is not set", code="usage.secret", hint=f"export {name}")
    if kind == "data":
        head, _, data = _without(reference, "data:").partition(",")
        if "base64" in (part.strip() for part in head.split(";")):
            try:
                return base64.b64decode(data, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                pass
        raise UsageError(f"{setting}: not a data:;base64,… reference", code="usage.secret")
    raise UsageError(
        f"{setting}: {kind}: references are not supported",
        code="usage.secret",
        hint="let the other tool write the secret to a file or a variable, and name that (file://… or env://…)",
    )


def _scheme(reference: str) -> str:
    try:
        scheme = urlsplit(reference).scheme
    except ValueError:
        return ""
    # One letter is a drive, not a scheme.
    return scheme if len(scheme) > 1 else ""


def _without(reference: str, prefix: str) -> str:
    return reference[len(prefix) :] if reference.lower().startswith(prefix) else reference
