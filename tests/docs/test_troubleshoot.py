"""The errors' words on the page of troubleshooting are those that a person reads: each is provoked, or found where it is tested."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.degraded.site import Site
from tests.docs.provoking import PROVOKED

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "troubleshoot.md"
#: Errors that need a fault inside of a running command: the test that provokes each, which names its code or its words.
TESTED = {
    "nats.snapshot": "tests/integration/test_jetstream_snapshot.py::test_a_reader_that_never_comes_back_ends_in_the_servers_words",
    "data.count": "tests/integration/test_damaged_snapshots.py::test_what_2_10_cannot_send_but_still_read_is_backed_up_and_what_it_has_lost_is_told",
    "nats.stream-offline": "tests/integration/test_kill_backup.py",
    "nats.stream-recreated": "tests/integration/test_kill_backup.py::test_a_stream_that_is_created_anew_right_after_it_was_listed_is_not_taken_for_the_one_before",
}


def rows() -> list[tuple[str, str]]:
    """The words and the code of each error on the page."""
    return re.findall(r"^\| `([^`]+)` \[([a-z.-]+)\] \|", PAGE.read_text(), re.MULTILINE)


def name_of(words: str, code: str) -> str:
    """What `PROVOKED` calls it: its code, with the end of its words where several have one code."""
    ended = f"{code}: {words.rpartition(': ')[2]}"
    return ended if ended in PROVOKED else code


def test_every_error_is_provoked_somewhere_and_the_page_has_each() -> None:
    named = [name_of(*row) for row in rows()]
    assert sorted(named) == sorted({*PROVOKED, *TESTED})
    assert len(named) >= 15


#: The store is asked again and again for seconds; tests/integration/test_several_repositories.py has their codes in the default run.
PATIENT = ("store.unreachable", "store.no-credentials")


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow if one in PATIENT else []) for one in PROVOKED]
)
def test_the_error_says_what_the_page_says(site: Site, name: str) -> None:
    (words, code) = next(row for row in rows() if name_of(*row) == name)
    told = PROVOKED[name](site)
    pattern = ".*".join(re.escape(part.strip()) for part in words.split("…"))
    wanted = code.replace("restore.loss-max-age", "")
    found = [line for line in told.splitlines() if re.search(pattern, line) and (f"[{wanted}]" in line or not wanted)]
    assert found, f"{words} [{code}] is not in:\n{told}"


@pytest.mark.parametrize("code", TESTED)
def test_errors_that_are_provoked_elsewhere_are_said_so_in_the_code_and_tested(code: str) -> None:
    (words,) = [words for words, its in rows() if its == code]
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    for part in words.split("…"):
        assert part.strip(" :") in source, part
    path, _, test = TESTED[code].partition("::")
    text = (ROOT / path).read_text()
    assert f"def {test}(" in text if test else True
    assert code in text or code.partition("-")[2] in text
