"""The official CLI's order and names (natscli 0.5.1, jsm.go natscontext), without any server."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from jetkeep.config import connection_settings
from jetkeep.config.connection import DEFAULT_URL, seconds
from jetkeep.errors import UsageError
from tests.operator_mode import OperatorMode

SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"


class Home:
    """A home directory with contexts, and the environment that points to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environ = {"HOME": str(path)}

    def context(self, name: str, select: bool = False, **settings: Any) -> Path:
        folder = self.path / ".config/nats"
        (folder / "context").mkdir(parents=True, exist_ok=True)
        file = folder / "context" / f"{name}.json"
        file.write_text(json.dumps(settings))
        if select:
            (folder / "context.txt").write_text(f"{name}\n")
        return file


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_nothing_given_means_the_local_server(home: Home) -> None:
    found = connection_settings({}, home.environ)
    assert found.servers == (DEFAULT_URL,)
    assert found.timeout_s == 5
    assert found.context == ""


def test_flags_win_over_variables_and_variables_over_the_context(home: Home) -> None:
    home.context("prod", select=True, url="nats://ctx:1", jetstream_domain="HUB", inbox_prefix="_MINE")
    assert connection_settings({}, home.environ).servers == ("nats://ctx:1",)
    environ = {**home.environ, "NATS_URL": "nats://env:2"}
    assert connection_settings({}, environ).servers == ("nats://env:2",)
    found = connection_settings({"server": "nats://flag:3"}, environ)
    assert found.servers == ("nats://flag:3",)
    assert (found.js_domain, found.inbox_prefix, found.context) == ("HUB", "_MINE", "prod")


def test_a_context_is_chosen_by_flag_then_variable_then_selection(home: Home) -> None:
    for name in ("one", "two", "three"):
        home.context(name, select=name == "three", url=f"nats://{name}:1")
    environ = {**home.environ, "NATS_CONTEXT": "two"}
    assert connection_settings({"context": "one"}, environ).context == "one"
    assert connection_settings({}, environ).context == "two"
    assert connection_settings({}, home.environ).context == "three"
    assert connection_settings({"no_context": True}, environ).context == ""


def test_a_context_can_be_a_file(home: Home) -> None:
    file = home.context("x", URL="nats://file:9")
    assert connection_settings({"context": str(file)}, {}).servers == ("nats://file:9",)


def test_the_xdg_directory_holds_the_contexts(home: Home, tmp_path: Path) -> None:
    (tmp_path / "xdg/nats/context").mkdir(parents=True)
    (tmp_path / "xdg/nats/context/a.json").write_text('{"url": "nats://xdg:1"}')
    environ = {**home.environ, "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert connection_settings({"context": "a"}, environ).servers == ("nats://xdg:1",)


@pytest.mark.parametrize("name", ["absent", "../x", "a/b"])
def test_an_unknown_context_is_an_error_that_names_the_known(home: Home, name: str) -> None:
    home.context("prod", url="nats://a:1")
    with pytest.raises(UsageError, match="no context") as caught:
        connection_settings({"context": name}, home.environ)
    assert "prod" in caught.value.hint


def test_a_selected_context_that_is_gone_is_an_error_not_the_default_server(home: Home) -> None:
    home.context("gone", select=True, url="nats://a:1").unlink()
    with pytest.raises(UsageError, match="selected"):
        connection_settings({}, home.environ)


def test_a_broken_context_does_not_show_what_is_in_it(home: Home) -> None:
    home.context("prod").write_text('{"password": "s3cret')
    with pytest.raises(UsageError) as caught:
        connection_settings({"context": "prod"}, home.environ)
    assert "s3cret" not in str(caught.value) + caught.value.hint


def test_a_user_without_a_password_is_a_token(home: Home) -> None:
    found = connection_settings({"user": "t0ken"}, home.environ)
    assert (found.user, found.token) == (None, "t0ken")


def test_one_kind_of_credentials_is_used_user_first(home: Home, tmp_path: Path) -> None:
    (tmp_path / "a.creds").write_text(OperatorMode.creds("eyJ.x", SEED))
    (tmp_path / "a.nk").write_text(f"-----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n")
    home.context("all", user="u", password="p", creds="~/a.creds", nkey="$HOME/a.nk", user_jwt="j", user_seed=SEED)
    found = connection_settings({"context": "all"}, home.environ)
    assert (found.user, found.password, found.nkey_seed, found.jwt) == ("u", "p", None, None)
    home.context("all", creds="~/a.creds", nkey="${HOME}/a.nk", user_jwt="j", user_seed=SEED)
    found = connection_settings({"context": "all"}, home.environ)
    assert (found.jwt, found.seed, found.nkey_seed) == ("eyJ.x", SEED, None)
    home.context("all", nkey="${HOME}/a.nk", user_jwt="j", user_seed=SEED)
    assert connection_settings({"context": "all"}, home.environ).nkey_seed == SEED
    home.context("all", user_jwt="j", user_seed=SEED)
    found = connection_settings({"context": "all"}, home.environ)
    assert (found.jwt, found.seed) == ("j", SEED)


@pytest.mark.parametrize(
    "reference", ["s3cret", "env://SECRET", "ENV://SECRET", "data:;base64," + base64.b64encode(b"s3cret\n").decode()]
)
def test_references_are_resolved_and_never_shown(home: Home, reference: str) -> None:
    home.context("prod", user="ann", password=reference)
    found = connection_settings({"context": "prod"}, {**home.environ, "SECRET": "s3cret"})
    assert found.password == "s3cret"
    assert "s3cret" not in f"{found!r} {found}"


def test_a_file_reference_is_read(home: Home, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    assert connection_settings({"token": "file://~/token"}, home.environ).token == "s3cret"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"creds": "/none/x.creds"}, "no file"),
        ({"creds": "op://vault/item"}, "not supported"),
        ({"creds": "nsc://op/acc/user"}, "not supported"),
        ({"token": "env://UNSET"}, "UNSET is not set"),
        ({"token": "data:,x"}, "base64"),
        ({"creds": "data:;base64,eA=="}, "no user's JWT"),
        ({"nkey": "data:;base64,eA=="}, "no user's seed"),
        ({"tlscert": "/dev/null"}, "needs its key"),
        ({"tlsca": "env://CA"}, "cannot be"),
        ({"timeout": "5"}, "no duration"),
        ({"timeout": "0s"}, "no duration"),
        ({"server": "http://u:s3cret@h:1"}, "URL 1"),
        ({"server": "nats://h:1,nats://u:s3cret@h:port"}, "URL 2"),
    ],
)
def test_what_cannot_be_used_is_a_usage_error_without_secrets(home: Home, flags: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        connection_settings(flags, home.environ)
    assert "s3cret" not in str(caught.value) + caught.value.hint


def test_a_socks_proxy_is_refused_unless_turned_off(home: Home) -> None:
    home.context("prod", socks_proxy="socks5://p:1")
    with pytest.raises(UsageError, match="SOCKS"):
        connection_settings({"context": "prod"}, home.environ)
    assert connection_settings({"context": "prod"}, {**home.environ, "NATS_SOCKS_PROXY": "none"}).context == "prod"


def test_server_urls_are_a_list_and_shown_without_their_users() -> None:
    found = connection_settings({"server": "nats://ann:s3cret@a:1, b:2,tls://t0ken@[::1]:3"}, {"HOME": "/nonexistent"})
    assert found.servers == ("nats://ann:s3cret@a:1", "nats://b:2", "tls://t0ken@[::1]:3")
    assert found.where == "nats://a:1, nats://b:2, tls://[::1]:3"
    assert "s3cret" not in repr(found)


def test_durations() -> None:
    assert (seconds("5s"), seconds("1m30s"), seconds("250ms"), seconds("1.5h")) == (5, 90, 0.25, 5400)
