"""Sealed objects: AES-256-GCM in chunks, bound to repository and name, under a key that only recipients unwrap.

Pure: bytes in, bytes out. The form is in docs/format.md, *Sealed objects*; why it is so in docs/adr/010-sealing.md.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from jetkeep.errors import BadDataError
from jetkeep.repository.documents import ManifestRef

MAGIC = b"jetkeep sealed 1\n"
CHUNK = 1024 * 1024
TAG = 16
#: A header holds the references of a manifest: as many as fit into a manifest.
MAX_HEADER = 1024 * 1024 * 1024
_SALT = 16


class Header(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What stands before the chunks, readable by everybody, changed by nobody unseen.

    Attributes:
        key: the run's key, wrapped with age for the repository, base64.
        salt: 32 hex digits; with the run's key they make this object's key.
        size: bytes of the plain object.
        needs: of a manifest its segments, so that `expire` and `verify` can do without any key.
    """

    key: str
    salt: str
    size: int
    needs: list[ManifestRef] = []


class Unwrap(Protocol):
    """The run's key for its wrapped form."""

    def __call__(self, wrapped: bytes) -> bytes:
        """Raises AccessDeniedError when it cannot be had."""
        ...


@dataclass(frozen=True, slots=True)
class RunKey:
    """The key of one run: 32 random bytes, and the same wrapped for the repository."""

    secret: bytes
    wrapped: bytes

    @classmethod
    def new(cls, wrap: Callable[[bytes], bytes]) -> RunKey:
        """A fresh one."""
        secret = secrets.token_bytes(32)
        return cls(secret, wrap(secret))


def seal_object(
    data: bytes | memoryview, run: RunKey, repository: str, bound: str, needs: Sequence[ManifestRef] = ()
) -> memoryview:
    """A sealed object. The same key, name and bytes give the same object again, so that a lost one can be made anew.

    Args:
        data: the plain object.
        run: the run's key.
        repository: the repository's id.
        bound: the object's name without what depends on its sealed bytes (`layout.bound_name`).
        needs: of a manifest its segments; they stay readable.
    """
    salt = _salt(run.secret, data, bound, needs)
    wrapped = base64.b64encode(run.wrapped).decode()
    header = msgspec.json.encode(Header(key=wrapped, salt=salt.hex(), size=len(data), needs=list(needs)))
    head = MAGIC + len(header).to_bytes(4, "little") + header
    cipher, bind = _object_key(run.secret, salt, repository, bound), _bind(repository, bound, head)
    view, at = memoryview(data), len(head)
    out = bytearray(at + _sealed_size(len(data)))
    out[:at] = head
    into = memoryview(out)
    for number, last in _chunks(len(data)):
        chunk = view[number * CHUNK : (number + 1) * CHUNK]
        end = at + len(chunk) + TAG
        cipher.encrypt_into(_nonce(number, last), chunk, bind, into[at:end])
        at = end
    return into.toreadonly()


def open_object(data: bytes, unwrap: Unwrap, repository: str, bound: str, key: str, run: str | None = None) -> bytes:
    """The plain object.

    Args:
        data: the sealed object.
        unwrap: opens keys of runs.
        repository: the repository's id.
        bound: the name under which it was sealed.
        key: where it lies, for errors.
        run: the wrapped key of the only run that may have sealed it, base64; None: any.

    Raises:
        AccessDeniedError: the run's key cannot be had.
        BadDataError: it is not what was sealed under this name in this repository, from its first byte to its last.
    """
    header, begin = read_header(data, key)
    if run is not None and header.key != run:
        raise _damaged(key, "it is of another run than the backup that names it")
    try:
        wrapped, salt = base64.b64decode(header.key, validate=True), bytes.fromhex(header.salt)
    except ValueError:
        raise _damaged(key, "its header cannot be read") from None
    if len(data) != begin + _sealed_size(header.size):
        raise _damaged(key, "it is cut, or longer than it was")
    secret = unwrap(wrapped)
    cipher, bind = _object_key(secret, salt, repository, bound), _bind(repository, bound, data[:begin])
    view, at, out = memoryview(data), begin, bytearray(header.size)
    into = memoryview(out)
    try:
        for number, last in _chunks(header.size):
            end = min(at + CHUNK + TAG, len(data))
            plain = into[number * CHUNK : number * CHUNK + end - at - TAG]
            cipher.decrypt_into(_nonce(number, last), view[at:end], bind, plain)
            at = end
    except InvalidTag:
        raise _damaged(key, "it was changed, or sealed under another name or in another repository") from None
    return bytes(out)


def read_header(data: bytes, key: str) -> tuple[Header, int]:
    """The header, and where the chunks begin; nothing of it is proven but by the object's digest.

    Raises:
        BadDataError: it is no sealed object.
    """
    begin = len(MAGIC) + 4
    if data[: len(MAGIC)] != MAGIC or len(data) < begin:
        raise _damaged(key, "it is no sealed object")
    size = int.from_bytes(data[len(MAGIC) : begin], "little")
    if size > min(MAX_HEADER, len(data) - begin):
        raise _damaged(key, "its header is cut")
    try:
        header = msgspec.json.decode(data[begin : begin + size], type=Header)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError, RecursionError) as wrong:
        raise _damaged(key, f"its header cannot be read ({wrong})") from None
    if header.size < 0:
        raise _damaged(key, "its header states a size below 0")
    return header, begin + size


def authenticate(secret: bytes, body: bytes) -> str:
    """The code by which a reader knows that a document is the run's own: 64 hex digits."""
    return hmac.digest(secret, b"jetkeep document 1\n" + body, "sha256").hex()


def _count(size: int) -> int:
    return max(1, -(-size // CHUNK))  # an empty object has one chunk, empty


def _sealed_size(size: int) -> int:
    return size + TAG * _count(size)


def _chunks(size: int) -> Iterator[tuple[int, bool]]:
    """The number of each chunk, and whether it is the last."""
    count = _count(size)
    return ((number, number == count - 1) for number in range(count))


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _salt(secret: bytes, data: bytes | memoryview, bound: str, needs: Sequence[ManifestRef]) -> bytes:
    # The tag is a keyed hash of the content, ten times as fast as SHA-256, and as good for this: nobody but us ever sees it.
    content = AESGCM(hmac.digest(secret, b"jetkeep content 1", "sha256")).encrypt(bytes(12), b"", data)
    listed = hashlib.sha256(msgspec.json.encode(list(needs))).digest()
    return hmac.digest(secret, b"\0".join([bound.encode(), listed + content]), "sha256")[:_SALT]


def _object_key(secret: bytes, salt: bytes, repository: str, bound: str) -> AESGCM:
    info = b"\0".join([b"jetkeep sealed 1", repository.encode(), bound.encode()])
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret))


def _bind(repository: str, bound: str, head: bytes) -> bytes:
    return hashlib.sha256(b"\0".join([repository.encode(), bound.encode(), head])).digest()


def _damaged(key: str, why: str) -> BadDataError:
    return BadDataError(
        f"{key} is damaged: {why}",
        code="data.damaged",
        means="what depends on this object cannot be read; other backups are not affected",
        hint="run `jetkeep verify` to see which backups it touches, and restore from another one",
    )
