"""How to reach NATS: flags, then NATS_* variables, then the context, in the official CLI's order and with its names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from jetkeep.config.contexts import NONE, load_context
from jetkeep.config.secrets import content, expand, file_path, literal
from jetkeep.errors import UsageError

DEFAULT_URL = "nats://127.0.0.1:4222"
DEFAULT_TIMEOUT_S = 5.0
_SCHEMES = ("nats", "tls")
_JWT = re.compile(r"BEGIN NATS USER JWT-+\s+(\S+)\s+-+END")
_SEED = re.compile(r"\bSU[A-Z2-7]{40,}\b")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|µs|ns|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """Everything that a connection needs; secrets are resolved, and no repr shows them.

    At most one of `user`, `nkey_seed` and `jwt` is set; a credentials file has become `jwt` and `seed`.

    Attributes:
        servers: URLs with scheme; they may hold a user and password, so print `where`.
        timeout_s: how long a connection or an answer may take, in seconds.
        nkey_seed: seed of an nkey that is its own user. seed: the one that signs beside `jwt`; None for a bearer's JWT.
        tls_cert, tls_key, tls_ca: paths.
        context: name of the context that was used; empty when none was.
    """

    servers: tuple[str, ...] = field(default=(DEFAULT_URL,), repr=False)
    timeout_s: float = DEFAULT_TIMEOUT_S
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    nkey_seed: str | None = field(default=None, repr=False)
    jwt: str | None = field(default=None, repr=False)
    seed: str | None = field(default=None, repr=False)
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_ca: str | None = None
    tls_first: bool = False
    js_domain: str = ""
    js_api_prefix: str = ""
    inbox_prefix: str = ""
    context: str = ""

    @property
    def where(self) -> str:
        """The servers, without what their URLs tell of users."""
        return ", ".join(re.sub(r"//[^@/]*@", "//", url) for url in self.servers)


#: Flag, its variable, its key in a context. Flags and variables win over the context one by one.
_SETTINGS = (
    ("server", "NATS_URL", "url"),
    ("user", "NATS_USER", "user"),
    ("password", "NATS_PASSWORD", "password"),
    ("token", "NATS_TOKEN", "token"),
    ("creds", "NATS_CREDS", "creds"),
    ("nkey", "NATS_NKEY", "nkey"),
    ("jwt", "NATS_JWT", "user_jwt"),
    ("seed", "NATS_SEED", "user_seed"),
    ("tlscert", "NATS_CERT", "cert"),
    ("tlskey", "NATS_KEY", "key"),
    ("tlsca", "NATS_CA", "ca"),
    ("tlsfirst", "", "tls_first"),
    ("timeout", "NATS_TIMEOUT", ""),
    ("socks_proxy", "NATS_SOCKS_PROXY", "socks_proxy"),
    ("js_api_prefix", "", "jetstream_api_prefix"),
    ("js_domain", "", "jetstream_domain"),
    ("inbox_prefix", "", "inbox_prefix"),
)
#: The variables that settle a connection.
VARIABLES = frozenset({"NATS_CONTEXT", *(variable for _, variable, _ in _SETTINGS if variable)})


def connection_settings(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] = os.environ
) -> ConnectionSettings:
    """Resolve the settings, as natscli 0.5.1 does.

    Args:
        flags: what was given on the command line, by the flag's name with underscores (`js_domain`); also
            `context` and `no_context`.
        environ: the variables; `NATS_CONTEXT` chooses the context.

    Raises:
        UsageError: no such context or file, a secret that cannot be resolved, or something that is not supported.
    """
    flags = flags or {}
    wanted = str(flags.get("context") or environ.get("NATS_CONTEXT", ""))
    context = NONE if flags.get("no_context") else load_context(wanted, environ)
    given = {flag: flags.get(flag) or environ.get(variable, "") for flag, variable, _ in _SETTINGS}
    if given["user"] and not given["password"]:
        # The official CLI: a user without a password is a token.
        given["token"], given["user"] = given["user"], ""
    found = {flag: given[flag] or context.settings.get(key, "") for flag, _, key in _SETTINGS}
    _refuse_unsupported(found, context.settings)
    for key in ("creds", "nkey", "tlscert", "tlskey", "tlsca"):
        found[key] = expand(str(found[key]), environ)
    return ConnectionSettings(
        servers=_servers(str(found["server"])),
        timeout_s=seconds(str(found["timeout"])) if found["timeout"] else DEFAULT_TIMEOUT_S,
        tls_first=bool(found["tlsfirst"]),
        js_domain=str(found["js_domain"]),
        js_api_prefix=str(found["js_api_prefix"]).rstrip("."),
        inbox_prefix=str(found["inbox_prefix"]).rstrip("."),
        context=context.name,
        **_credentials({key: str(value) for key, value in found.items()}, environ),
        **_tls_files({key: str(value) for key, value in found.items()}, environ),
    )


def _credentials(found: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The first kind of credentials that is there, in the official CLI's order; a token goes with any of them."""
    chosen: dict[str, str] = {}
    if found["token"]:
        chosen["token"] = literal(found["token"], "token", environ)
    if found["user"]:
        return {**chosen, "user": found["user"], "password": literal(found["password"], "password", environ)}
    if found["creds"]:
        text = content(found["creds"], "creds", environ)
        jwt = _JWT.search(text)
        if not jwt:
            raise UsageError("creds: no user's JWT is in it", code="usage.secret", hint="give the file that nsc made")
        return {**chosen, "jwt": jwt[1], "seed": _seed(text, "creds")}
    if found["nkey"]:
        return {**chosen, "nkey_seed": _seed(content(found["nkey"], "nkey", environ), "nkey")}
    if found["jwt"]:
        chosen["jwt"] = literal(found["jwt"], "jwt", environ).strip()
        if found["seed"]:
            chosen["seed"] = _seed(literal(found["seed"], "seed", environ), "seed")
    return chosen


def _seed(text: str, setting: str) -> str:
    seed = _SEED.search(text)
    if not seed:
        raise UsageError(f"{setting}: no user's seed (SU…) is in it", code="usage.secret")
    return seed[0]


def _tls_files(found: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    if bool(found["tlscert"]) != bool(found["tlskey"]):
        raise UsageError(
            "a client certificate needs its key and the key its certificate",
            code="usage.tls",
            hint="give both --tlscert and --tlskey",
        )
    names = {"tls_cert": "tlscert", "tls_key": "tlskey", "tls_ca": "tlsca"}
    return {name: file_path(found[key], key, environ) for name, key in names.items() if found[key]}


def _refuse_unsupported(found: Mapping[str, Any], context: Mapping[str, Any]) -> None:
    if found["socks_proxy"] and str(found["socks_proxy"]).lower() not in ("none", "-"):
        raise UsageError(
            "connecting through a SOCKS proxy is not supported",
            code="usage.unsupported",
            hint="forward the port (ssh -L) and connect there; NATS_SOCKS_PROXY=none ignores the context's proxy",
        )
    for key in ("nsc", "windows_cert_store"):
        if context.get(key):
            raise UsageError(f"a context with '{key}' is not supported", code="usage.unsupported", hint="use creds")


def _servers(text: str) -> tuple[str, ...]:
    urls = [part.strip() for part in text.split(",") if part.strip()]
    servers = tuple(url if "://" in url else f"nats://{url}" for url in urls)
    for number, url in enumerate(servers, 1):
        try:
            parts = urlsplit(url)
            good = parts.scheme in _SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            good = False
        if not good:
            # Not the URL itself: it may hold a password.
            raise UsageError(
                f"server URL {number} cannot be used",
                code="usage.server",
                hint="write nats://HOST:PORT or tls://HOST:PORT, several with commas between; WebSocket is not supported",
            )
    return servers or (DEFAULT_URL,)


def seconds(text: str) -> float:
    """A duration such as `5s`, `1m30s` or `250ms`, in seconds.

    Raises:
        UsageError: it is none, or not more than 0.
    """
    parts = _DURATION.findall(text)
    total = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or total <= 0:
        raise UsageError(f"'{text}' is no duration", code="usage.duration", hint="write 5s, 1m30s or 250ms")
    return total
