"""Ed25519 keys and signatures of evidence, in the files that OpenSSL makes and reads (PKCS #8 and SPKI, PEM)."""

from __future__ import annotations

import base64
import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from jetkeep.errors import UsageError
from jetkeep.model import JsonDict

ALGORITHM = "Ed25519"
_LARGEST_FILE = 64 * 1024


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Who checks: `id` is the SHA-256 of the key in DER, `text` that DER in base64 (the middle of the PEM file)."""

    id: str
    text: str
    _key: Ed25519PublicKey

    def to_dict(self) -> JsonDict:
        """As a document states who signed it."""
        return {"algorithm": ALGORITHM, "key_id": self.id, "public_key": self.text}

    def fits(self, data: bytes, signature: str) -> bool:
        """The signature, in base64, is this key's of these bytes."""
        try:
            self._key.verify(base64.b64decode(signature, validate=True), data)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs."""

    public: PublicKey
    _key: Ed25519PrivateKey

    def sign(self, data: bytes) -> str:
        """The signature of these bytes, in base64."""
        return base64.b64encode(self._key.sign(data)).decode()


def public_key(text: str) -> PublicKey | None:
    """A key as a document states it; None when it is none."""
    try:
        key = load_der_public_key(base64.b64decode(text, validate=True))
    except (ValueError, UnsupportedAlgorithm):
        return None
    return _public(key) if isinstance(key, Ed25519PublicKey) else None


def read_signer(setting: str) -> Signer:
    """The key in a file, or the PEM text itself.

    Raises:
        UsageError: it cannot be read, or is no Ed25519 private key without a passphrase.
    """
    data = setting.encode() if setting.lstrip().startswith("-----BEGIN") else _read(Path(setting))
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:
        raise _refused("the signing key needs a passphrase", "keep the key in a secret store instead") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        where = "JETKEEP_SIGNING_KEY" if data == setting.encode() else setting
        raise _refused(f"{where} holds no Ed25519 private key in PEM", "make one with `jetkeep evidence keygen FILE`")
    return Signer(_public(key.public_key()), key)


def read_public_key(path: Path) -> PublicKey:
    """The key in a file.

    Raises:
        UsageError: it cannot be read, or is no Ed25519 public key.
    """
    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise _refused(f"{path} holds no Ed25519 public key in PEM", "it is the file that ends in .pub")
    return _public(key)


def make_keys(path: Path) -> PublicKey:
    """Write a new private key to `path` (its owner's alone) and the public one beside it, `.pub`; durable on return.

    Raises:
        UsageError: one of the files is there, or cannot be written; nothing was overwritten.
    """
    key = Ed25519PrivateKey.generate()
    beside = path.with_name(f"{path.name}.pub")
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _write(beside, public, 0o644)
    try:
        _write(path, private, 0o600)
    except UsageError:
        with suppress(OSError):
            beside.unlink()
        raise
    return _public(key.public_key())


def _public(key: Ed25519PublicKey) -> PublicKey:
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(hashlib.sha256(der).hexdigest(), base64.b64encode(der).decode(), key)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_FILE)
    except OSError as failure:
        raise _refused(f"the key {path} cannot be read: {failure.strerror}", "") from None


def _write(path: Path, data: bytes, mode: int) -> None:
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(file, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(file)
    except OSError as failure:
        hint = "give another name: keys are never overwritten" if isinstance(failure, FileExistsError) else ""
        raise _refused(f"the key {path} cannot be written: {failure.strerror}", hint) from None


def _refused(what: str, hint: str) -> UsageError:
    return UsageError(what, code="usage.signing-key", means="nothing was signed and nothing stored", hint=hint)
