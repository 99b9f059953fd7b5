"""How an error looks to a person and to a script."""

from __future__ import annotations

import json
import os
import sys
import traceback

from jetkeep.errors import JetkeepError


def report_failure(failure: JetkeepError, as_json: bool) -> int:
    """Tell an error on stderr (and as a document on stdout with `--json`); return the exit status."""
    if as_json:
        sys.stdout.write(json.dumps({"schema": "jetkeep.error/1", "error": failure.to_dict()}) + "\n")
    lines = [f"error: {failure.what}  [{failure.code}]"]
    if failure.means:
        lines.append(f"  data: {failure.means}")
    if failure.hint:
        lines.append(f"  do:   {failure.hint}")
    sys.stderr.write("\n".join(lines) + "\n")
    return failure.exit_status


def report_bug(bug: Exception, as_json: bool) -> int:
    """Tell an error that nobody foresaw; the traceback goes to stderr only when JETKEEP_DEBUG is set."""
    if isinstance(bug, ExceptionGroup):
        for inner in _leaves(bug):
            if isinstance(inner, JetkeepError):
                return report_failure(inner, as_json)
    if os.environ.get("JETKEEP_DEBUG"):
        traceback.print_exception(bug)
    failure = JetkeepError(
        f"{type(bug).__name__}: {bug}",
        code="bug",
        means="finished backups are untouched; what this run wrote and did not commit does not count",
        hint="this is a bug in jetkeep: please report it with the output of the same command under JETKEEP_DEBUG=1",
    )
    return report_failure(failure, as_json)


def _leaves(group: ExceptionGroup[Exception]) -> list[Exception]:
    found: list[Exception] = []
    for inner in group.exceptions:
        found.extend(_leaves(inner) if isinstance(inner, ExceptionGroup) else [inner])
    return found
