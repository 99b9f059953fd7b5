"""Flags that several commands share: where the repository is, how NATS is reached, how to print."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def _all(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def repository_options(function: F) -> F:
    """`--repo` and `--config`, which may name repositories."""
    return _all(
        click.option(
            "--repo",
            envvar="JETKEEP_REPO",
            show_envvar=True,
            metavar="URL",
            help="The repository: a path, a file://, s3://, gs:// or az:// URL, or its name in the configuration.",
        ),
        config_option,
    )(function)


#: Where what opens a sealed repository waits for who needs it (jetkeep.cli.settings).
IDENTITY = "jetkeep.identity"


def _remember_identity(context: click.Context, parameter: click.Parameter, value: str | bool | None) -> None:
    context.meta.setdefault(IDENTITY, {})[parameter.name] = value


def identity_options(function: F) -> F:
    """`--identity`, `--identity-command`, `--ask-passphrase`: for reading a sealed repository."""
    return _all(
        click.option(
            "--identity",
            envvar="JETKEEP_IDENTITY",
            show_envvar=True,
            metavar="FILE",
            expose_value=False,
            callback=_remember_identity,
            help="age identity that opens a sealed repository; the variable may hold the identity itself.",
        ),
        click.option(
            "--identity-command",
            metavar="COMMAND",
            expose_value=False,
            callback=_remember_identity,
            help="A command that prints the identity, without a shell.",
        ),
        click.option(
            "--ask-passphrase",
            is_flag=True,
            expose_value=False,
            callback=_remember_identity,
            help="Ask for the passphrase of a sealed repository; JETKEEP_PASSPHRASE needs no question.",
        ),
    )(function)


def config_option(function: F) -> F:
    """`--config`."""
    return click.option(
        "--config",
        envvar="JETKEEP_CONFIG",
        show_envvar=True,
        metavar="FILE",
        expose_value=False,
        callback=_remember,
        help="TOML file that names repositories and sources.",
    )(function)


#: Where the path of the configuration waits for who needs it (jetkeep.cli.settings).
CONFIG = "jetkeep.config"


def _remember(context: click.Context, _: click.Parameter, value: str | None) -> None:
    context.meta[CONFIG] = value


def output_options(function: F) -> F:
    """`--json` and `--quiet`."""
    return _all(
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
        click.option("-q", "--quiet", is_flag=True, help="No progress, no notices."),
    )(function)


#: As natscli names them (docs/reference/connection.md); the environment and contexts are read by jetkeep.config.
CONNECTION_FLAGS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("-s", "--server"),
        {"metavar": "URL", "help": "NATS server URLs, separated by commas. [env: NATS_URL]"},
    ),
    (("--user",), {"metavar": "USER", "help": "User name, or token. [env: NATS_USER]"}),
    (("--password",), {"metavar": "PASSWORD", "help": "Password; better in NATS_PASSWORD or a context."}),
    (("--token",), {"metavar": "TOKEN", "help": "Token; better in NATS_TOKEN or a context."}),
    (("--creds",), {"metavar": "FILE", "help": "Credentials file. [env: NATS_CREDS]"}),
    (("--nkey",), {"metavar": "FILE", "help": "NKEY seed file. [env: NATS_NKEY]"}),
    (("--jwt",), {"metavar": "JWT", "help": "User JWT. [env: NATS_JWT]"}),
    (("--seed",), {"metavar": "SEED", "help": "Seed of the JWT; better in NATS_SEED."}),
    (("--tlscert",), {"metavar": "FILE", "help": "TLS client certificate. [env: NATS_CERT]"}),
    (("--tlskey",), {"metavar": "FILE", "help": "Its key. [env: NATS_KEY]"}),
    (("--tlsca",), {"metavar": "FILE", "help": "Certificate authorities to trust. [env: NATS_CA]"}),
    (("--tlsfirst/--no-tlsfirst",), {"default": None, "help": "TLS handshake before the server's INFO."}),
    (
        ("--timeout",),
        {"metavar": "DURATION", "help": "Time to wait for an answer, such as 5s. [env: NATS_TIMEOUT]"},
    ),
    (("--js-api-prefix",), {"metavar": "PREFIX", "help": "Subject prefix of the JetStream API."}),
    (("--js-domain",), {"metavar": "DOMAIN", "help": "JetStream domain."}),
    (("--inbox-prefix",), {"metavar": "PREFIX", "help": "Prefix of inbox subjects."}),
    (("--context",), {"metavar": "NAME", "help": "natscli context. [env: NATS_CONTEXT]"}),
    (("--no-context",), {"is_flag": True, "help": "Ignore the selected context."}),
)


def connection_options(function: F) -> F:
    """The official CLI's connection flags, collected into one `connection` dict of those that were given."""
    import functools

    names = [flag_name(flags) for flags, _ in CONNECTION_FLAGS]

    @functools.wraps(function)
    def collected(**values: Any) -> Any:
        given = {name: values.pop(name) for name in names}
        values["connection"] = {name: value for name, value in given.items() if value not in (None, False)}
        return function(**values)

    decorated: Any = collected
    for flags, settings in reversed(CONNECTION_FLAGS):
        decorated = click.option(*flags, **settings)(decorated)
    return decorated  # type: ignore[no-any-return]


def flag_name(flags: tuple[str, ...]) -> str:
    """The Python name that click gives to an option."""
    return flags[-1].split("/")[0].lstrip("-").replace("-", "_")
