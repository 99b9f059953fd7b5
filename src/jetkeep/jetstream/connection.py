"""Connect as natscli does, and say why when it does not work."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import nats.errors
import nkeys

from jetkeep.config import ConnectionSettings
from jetkeep.errors import ServerError, UsageError
from jetkeep.jetstream.api import JetStream
from jetkeep.jetstream.client import RawClient
from jetkeep.jetstream.watch import Watch

#: How often each server is tried before it counts as unreachable.
CONNECT_TRIES = 3
CLOSE_S = 1.0


@asynccontextmanager
async def connect(settings: ConnectionSettings) -> AsyncIterator[JetStream]:
    """A connection to one account; closed at the block's end.

    Raises:
        ServerError: nothing answers, the credentials are refused, TLS fails, or the account has no JetStream.
        UsageError: a certificate file cannot be used.
    """
    watch = Watch()
    client = RawClient(tls_only=_wants_tls(settings) and not settings.tls_first)
    try:
        async with asyncio.timeout(CONNECT_TRIES * settings.timeout_s):
            await client.connect(error_cb=watch.on_error, disconnected_cb=watch.on_disconnect, **_options(settings))
    except (nats.errors.Error, nkeys.NkeysError, OSError, ValueError) as failure:
        await _close(client)
        raise _explain(settings, watch, failure, client.wants_certificate) from None
    # While connecting, the first refusal is the answer; later, other streams shall find the server when it is back.
    client.options.update(allow_reconnect=True, max_reconnect_attempts=-1)
    try:
        yield JetStream(client, settings, watch)
    finally:
        await _close(client)


async def _close(client: RawClient) -> None:
    # nats-py waits for ever for a TLS connection that failed or a server that is frozen, and may swallow the
    # cancellation that a time limit is: so it closes in a task of its own.
    closing = asyncio.ensure_future(client.close())
    done, _ = await asyncio.wait({closing}, timeout=CLOSE_S)
    if done:
        with suppress(nats.errors.Error, OSError):
            closing.result()
    else:
        closing.cancel()


def _options(settings: ConnectionSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "servers": list(settings.servers),
        "name": "jetkeep",
        "connect_timeout": max(1, round(settings.timeout_s)),
        "allow_reconnect": False,
        "max_reconnect_attempts": CONNECT_TRIES - 1,
        "reconnect_time_wait": 0.25,
        "pending_size": 64 * 1024 * 1024,
        "ping_interval": 20,
    }
    if settings.inbox_prefix:
        options["inbox_prefix"] = settings.inbox_prefix
    if settings.user is not None:
        options["user"] = settings.user
        options["password"] = settings.password or ""
    if settings.token is not None:
        options["token"] = settings.token
    options.update(_signatures(settings))
    context = _tls(settings)
    if context is not None:
        options["tls"] = context
        options["tls_handshake_first"] = settings.tls_first
    return options


def _signatures(settings: ConnectionSettings) -> dict[str, Any]:
    """How the user proves who it is: with an nkey, or a JWT and its seed."""
    if settings.nkey_seed is not None:
        return {"nkeys_seed_str": settings.nkey_seed}
    if settings.jwt is not None:
        seed, jwt = settings.seed, settings.jwt
        from_seed: Any = nkeys.from_seed

        def sign(nonce: str) -> bytes:
            # A bearer's JWT comes without a seed, and is not signed.
            return base64.b64encode(from_seed(bytearray(seed.encode())).sign(nonce.encode())) if seed else b""

        return {"user_jwt_cb": lambda: bytearray(jwt.encode()), "signature_cb": sign}
    return {}


def _tls(settings: ConnectionSettings) -> ssl.SSLContext | None:
    """What TLS is checked with; None where no setting asks for TLS, and the server alone decides."""
    if not _wants_tls(settings):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca or None)
        if settings.tls_cert:
            context.load_cert_chain(settings.tls_cert, settings.tls_key or None)
    except (OSError, ssl.SSLError) as failure:
        raise UsageError(
            f"cannot use the TLS files: {failure}", code="usage.tls", hint="check --tlsca, --tlscert and --tlskey"
        ) from None
    return context


def _wants_tls(settings: ConnectionSettings) -> bool:
    """Whether a setting asks for TLS: then nothing is sent without it."""
    asked = settings.tls_ca or settings.tls_cert or settings.tls_first
    return bool(asked) or any(url.startswith("tls://") for url in settings.servers)


_AUTH = re.compile(r"authoriz|authentic|nkey|jwt|credential|account", re.IGNORECASE)


def _explain(
    settings: ConnectionSettings, watch: Watch, failure: BaseException, wants_certificate: bool
) -> ServerError:
    where = settings.where
    said = [*watch.errors, failure]
    words = next((str(one) for one in said if _AUTH.search(str(one))), "")
    if words:
        return ServerError(
            f"{where} refused the credentials: {words}",
            code="nats.denied",
            means="nothing was read or changed",
            hint="check the context, --creds, --user or NATS_* variables",
        )
    tls = next((one for one in said if isinstance(one, ssl.SSLError) or "tls" in str(one).lower()), None)
    if tls is not None:
        return ServerError(
            f"TLS with {where} failed: {tls}",
            code="nats.tls",
            means="nothing was read or changed",
            hint="check --tlsca, --tlscert, --tlskey and --tlsfirst, and the certificate's names and dates",
        )
    why = next((str(one) for one in reversed(said) if str(one)), type(failure).__name__)
    if wants_certificate:
        # Since TLS 1.3 a refused certificate ends the connection after the handshake, with or without a word about it.
        which = "its certificate" if settings.tls_cert else "no certificate"
        return ServerError(
            f"{where} asks for a client certificate, and ended the connection that brought {which}: {why}",
            code="nats.tls",
            means="nothing was read or changed",
            hint="give --tlscert and --tlskey of an authority that the server knows",
        )
    return ServerError(
        f"no NATS server answers at {where}: {why}",
        code="nats.unreachable",
        means="nothing was read or changed",
        hint="is the server up, and the URL right? --server, NATS_URL or a context say which one is used",
        retryable=True,
    )
