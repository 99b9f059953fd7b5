"""An operator, an account with JetStream and its users, as JWTs: what `nsc` makes, for servers in operator mode."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from typing import Any

import nkeys

_JETSTREAM = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
_NO_LIMITS = {
    "subs": -1,
    "data": -1,
    "payload": -1,
    "imports": -1,
    "exports": -1,
    "wildcards": True,
    "conn": -1,
    "leaf": -1,
}


class Identity:
    """A key pair of one kind."""

    def __init__(self, prefix: int) -> None:
        encode: Any = nkeys.encode_seed
        self.seed = bytes(encode(os.urandom(32), prefix)).decode()
        make: Any = nkeys.from_seed
        self._pair = make(bytearray(self.seed.encode()))
        self.public = self._pair.public_key.decode()

    def sign(self, subject: Identity, name: str, claims: dict[str, Any]) -> str:
        """A JWT about `subject`, signed by this one."""
        body = {"iat": int(time.time()), "iss": self.public, "name": name, "sub": subject.public, "nats": claims}
        digest = hashlib.sha256(json.dumps(body).encode()).digest()
        body["jti"] = base64.b32encode(digest).decode().rstrip("=")
        parts = [_encode(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body)]
        return ".".join([*parts, _encode(self._pair.sign(".".join(parts).encode()))])


class OperatorMode:
    """`config` for the server; `user()` makes users of its one account."""

    def __init__(self) -> None:
        operator, self._account = Identity(nkeys.PREFIX_BYTE_OPERATOR), Identity(nkeys.PREFIX_BYTE_ACCOUNT)
        system = Identity(nkeys.PREFIX_BYTE_ACCOUNT)
        account = {"limits": {**_NO_LIMITS, **_JETSTREAM}, "type": "account", "version": 2}
        self.config = {
            "operator": operator.sign(operator, "O", {"type": "operator", "version": 2}),
            "system_account": system.public,
            "resolver": "MEMORY",
            "resolver_preload": {
                self._account.public: operator.sign(self._account, "A", account),
                system.public: operator.sign(system, "SYS", {"limits": _NO_LIMITS, "type": "account", "version": 2}),
            },
        }

    def user(self, *, bearer: bool = False) -> tuple[str, str]:
        """A new user's JWT and seed."""
        user = Identity(nkeys.PREFIX_BYTE_USER)
        claims = {"subs": -1, "data": -1, "payload": -1, "bearer_token": bearer, "type": "user", "version": 2}
        return self._account.sign(user, "U", claims), user.seed

    @staticmethod
    def creds(jwt: str, seed: str) -> str:
        """The text of a credentials file."""
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
