"""The TOML file: what it may say, and how a mistake in it is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jetkeep.config.file import (
    AgentTable,
    HeartbeatTable,
    MetricsTable,
    NotificationTable,
    RepositoryTable,
    ScheduleTable,
    SourceTable,
    load_config,
)
from jetkeep.errors import UsageError

WHOLE = """
[repositories.local]
url = "/backups"
keep = { daily = 7, within = "30d", tag = ["release"] }

[repositories.offsite]
url = "s3://bucket/prefix"
encrypt-to = ["age1x"]
endpoint = "https://s3.example"
path-style = true
lock = { mode = "governance", days = 30 }

[repositories.third]
url = "gs://bucket"
required = true

[sources.prod]
context = "prod"
streams = ["ORDERS", "KV_*"]

[sources.edge]
server = "nats://edge:4222"
creds = "/etc/nats/edge.creds"
js-domain = "edge"
include-files = ["/etc/nats/*.conf"]
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "jetkeep.toml"
    path.write_text(text)
    return str(path)


def test_repositories_stand_in_order_and_the_first_is_required(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, WHOLE))
    assert list(config.repositories) == ["local", "offsite", "third"]
    assert [config.required(name) for name in config.repositories] == [True, False, True]
    keep, lock = config.repositories["local"].keep, config.repositories["offsite"].lock
    assert keep
    assert (keep.daily, keep.within, keep.tag) == (7, "30d", ["release"])
    assert lock
    assert (lock.mode, lock.days) == ("governance", 30)


def test_a_source_without_a_context_takes_none(tmp_path: Path) -> None:
    sources = load_config(written(tmp_path, WHOLE)).sources
    assert sources["prod"].flags() == {"context": "prod"}
    assert sources["edge"].flags() == {
        "server": "nats://edge:4222",
        "creds": "/etc/nats/edge.creds",
        "js_domain": "edge",
        "no_context": True,
    }


def test_the_variable_names_the_file_and_the_flag_wins(tmp_path: Path) -> None:
    there = written(tmp_path, WHOLE)
    assert load_config(None, {"JETKEEP_CONFIG": there}).sources.keys() == {"prod", "edge"}
    assert load_config(there, {"JETKEEP_CONFIG": "/nowhere"}).sources.keys() == {"prod", "edge"}
    assert not load_config(None, {}).repositories


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("[repositories.a]\nurl='x'\nrequred=true", "unknown key 'requred' in [repositories.a]", "'required'"),
        ("[repositories.a]\nurl='x'\nallow_http=true", "unknown key 'allow_http'", "'allow-http'"),
        ("[repositories.b]\nurl='x'\nkeep={dayly=3}", "'dayly' in [repositories.b.keep]", "'daily'"),
        ("[sources.b]\nsreams=['x']", "'sreams' in [sources.b]", "'streams'"),
        ("[repository.b]\nurl='x'", "unknown key 'repository' in the file", "'repositories'"),
        ("[repositories.a]\nrequired=true", "repositories.a: Object missing required field `url`", "config.md"),
        ("[repositories.a]\nurl=3", "repositories.a.url: Expected `str`, got `int`", "config.md"),
        ("[repositories.a]\nurl='x'\nkeep={daily=0}", "repositories.a.keep.daily", "config.md"),
        ("[repositories.a]\nurl='x'\nlock={mode='firm',days=1}", "repositories.a.lock.mode", "config.md"),
        ("[repositories.'a b']\nurl='x'", "that is no name", "letters"),
        ("repositories = 3", "repositories is no table", "[repositories.NAME]"),
        ("[repositories", "is no TOML", "quotes"),
        ("[repositories.a]\nurl='/x'\n[repositories.b]\nurl='/x/'", "a and b are both at", "place of its own"),
        ("[sources.a]\npassword='hunter2'", "a secret at sources.a.password", "env://NAME"),
        ("[sources.a]\ntoken='hunter2'", "a secret at sources.a.token", "env://NAME"),
        ("[sources.a]\nserver='nats://h,nats://me:hunter2@h'", "a secret at sources.a.server", "beside the URL"),
        ("[repositories.a]\nurl='x'\nstore-options={secret_access_key='hunter2'}", "secret_access_key", "file://PATH"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, what: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_config(written(tmp_path, text))
    assert refused.value.code == "usage.config"
    assert what in refused.value.what
    assert hint in refused.value.hint
    assert "hunter2" not in str(refused.value.to_dict())


def test_secrets_are_referred_to_and_what_is_none_may_stand_there(tmp_path: Path) -> None:
    said = (
        "{ secret_access_key = 'env://K', sse_kms_key_id = 'x', sse_bucket_key_enabled = 'true', skip_signature = 'y' }"
    )
    text = f"[repositories.a]\nurl='x'\nstore-options={said}\n[sources.s]\npassword='file:///run/pw'\nnkey='/run/seed'"
    config = load_config(written(tmp_path, text))
    assert len(config.repositories["a"].store_options) == 4
    assert config.sources["s"].password == "file:///run/pw"


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(str(tmp_path / "absent.toml"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="no TOML"):
        load_config(str(tmp_path / "binary"))


def test_the_page_names_every_key_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/config.md").read_text()
    keys = set(re.findall(r"`([a-z-]+)`", "\n".join(re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE))))
    tables = (RepositoryTable, SourceTable, MetricsTable, ScheduleTable, AgentTable, HeartbeatTable, NotificationTable)
    assert keys == {key for one in tables for key in one.__struct_encode_fields__}
