"""Who can read a sealed repository: its key pair, wrapped with age for recipients and passphrases (docs/format.md, *Keys*)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyrage

from jetkeep.errors import AccessDeniedError, AlreadyThereError, BadDataError, NoObjectError, StoreError, UsageError
from jetkeep.repository import encoding, layout
from jetkeep.repository.documents import KeyDocument, Wrapped
from jetkeep.repository.leases import LeaseClock, rfc3339
from jetkeep.repository.sealing import RunKey
from jetkeep.repository.store import Store, create_surely

PASSPHRASE = "passphrase"  # noqa: S105 - the name of a kind, not a secret
_MAX_KEYS = 1024 * 1024
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a reader has: age identities (`AGE-SECRET-KEY-1…`), or a passphrase. No repr shows them."""

    identities: tuple[str, ...] = field(default=(), repr=False)
    passphrase: str | None = field(default=None, repr=False)

    @property
    def empty(self) -> bool:
        """There are none."""
        return not self.identities and self.passphrase is None


@dataclass(slots=True)
class Keyring:
    """A repository's key document; after `unlock` its private keys, the newest first.

    `left` are older key documents that could not be deleted.
    """

    store: Store
    document: KeyDocument
    key: str
    left: list[str] = field(default_factory=list)
    _private: list[str] = field(default_factory=list, repr=False)

    @property
    def recipient(self) -> str:
        """Whom a run's key is wrapped for."""
        return self.document.recipient

    @property
    def names(self) -> list[str]:
        """The recipients whose identities open it; PASSPHRASE stands for a passphrase."""
        return [one.recipient for one in self.document.wrapped]

    @property
    def unlocked(self) -> bool:
        """Sealed objects can be read."""
        return bool(self._private)

    def run_key(self) -> RunKey:
        """A fresh key for a run."""
        to = [pyrage.x25519.Recipient.from_str(self.recipient)]
        return RunKey.new(lambda secret: pyrage.encrypt(secret, to))

    def unwrap(self, wrapped: bytes) -> bytes:
        """A run's key.

        Raises:
            AccessDeniedError: the keyring is locked, or the key was wrapped for another repository.
        """
        if not self._private:
            raise _locked(self.store.url)
        try:
            secret: bytes = pyrage.decrypt(wrapped, [pyrage.x25519.Identity.from_str(one) for one in self._private])
        except pyrage.DecryptError:
            raise AccessDeniedError(
                f"an object in {self.store.url} was sealed for another repository's key",
                code="key.other-repository",
                means="it was not read; it may have been put there by somebody else",
                hint="run `jetkeep verify` with the identity to see which backups hold such objects",
            ) from None
        return secret

    def unlock(self, credentials: Credentials) -> None:
        """Take the private keys out of their wrapping.

        Raises:
            AccessDeniedError: none of the identities, nor the passphrase, opens them; or what runs are asked to seal for is not theirs.
            UsageError: an identity is none.
        """
        if credentials.empty:
            raise _locked(self.store.url)
        for wrapped in self.document.wrapped:
            if text := _opened(wrapped, credentials, self.key):
                private = text.decode().split()
                if not private or _public(private[0], self.key) != self.recipient:
                    raise _swapped(self.store.url, self.recipient)
                self._private = private
                return
        raise AccessDeniedError(
            f"the identity that was given opens no key of {self.store.url}",
            code="key.wrong",
            means="nothing was read; the data is untouched",
            hint=f"it is sealed for {', '.join(self.names)}: give one of their identities",
        )

    async def rewrap(
        self, recipients: Sequence[str], passphrase: str | None, *, rotate: bool, now_ns: LeaseClock
    ) -> Keyring:
        """Wrap the private keys for these recipients from now on, with a new key pair for later backups when `rotate`.

        The new key document is durable before older ones are deleted; where they cannot be deleted they are in `left`, and whoever
        they were wrapped for can still read.

        Args:
            recipients: all who are to read; PASSPHRASE among them keeps the passphrase as it is.
            passphrase: a new one; with `rotate` the one that is there, because it is wrapped for again.
            rotate: with a new key pair.
            now_ns: the clock, ns since the epoch.

        Raises:
            AccessDeniedError: it is locked.
            UsageError: a recipient is none, or nobody is left, or the passphrase is not the one that is there.
        """
        if not self._private:
            raise _locked(self.store.url)
        private = list(self._private)
        there = {one.recipient: one for one in self.document.wrapped}
        if rotate:
            private.insert(0, str(pyrage.x25519.Identity.generate()))
            if PASSPHRASE in there and not (
                passphrase and _opened(there[PASSPHRASE], Credentials(passphrase=passphrase), self.key)
            ):
                raise UsageError(
                    "that is not the passphrase",
                    code="usage.passphrase",
                    means="nothing was changed: the keys are as before",
                )
            there = {}
        wrapped = _wrapped(private, [one for one in recipients if one not in there], passphrase)
        wrapped = [*(there[one] for one in recipients if one in there), *wrapped]
        if not wrapped:
            raise UsageError(
                "nobody could read this repository any more", code="usage.recipient", means="nothing was changed"
            )
        document = _document(private[0], wrapped, self.document.generation + 1, now_ns)
        key = await _store(self.store, document)
        return Keyring(self.store, document, key, await _remove_older(self.store, key), private)


async def create_keys(
    store: Store, recipients: Sequence[str], passphrase: str | None, *, now_ns: LeaseClock
) -> Keyring:
    """A new repository's key pair, wrapped; durable on return. Keys for the same recipients that are there already are taken.

    Raises:
        UsageError: a recipient is none, or there is nobody to wrap it for; or keys for others are there.
    """
    if not recipients and passphrase is None:
        raise UsageError("nobody was named to seal for", code="usage.recipient", hint="give --encrypt-to age1…")
    private = str(pyrage.x25519.Identity.generate())
    document = _document(private, _wrapped([private], recipients, passphrase), 1, now_ns)
    try:
        return Keyring(store, document, await _store(store, document))
    except UsageError:
        there = await load_keys(store)  # of somebody else's first backup, or of an init that was killed
        wanted = {*recipients, *([PASSPHRASE] if passphrase is not None else [])}
        if passphrase is not None or {one.recipient for one in there.document.wrapped} != wanted:
            raise
        return there


async def load_keys(store: Store) -> Keyring:
    """The newest key document.

    Raises:
        AccessDeniedError: there is none.
        BadDataError: it is damaged.
    """
    for _ in range(_TRIES):
        keys = await _listed(store)
        if not keys:
            break
        with contextlib.suppress(NoObjectError):  # somebody wrote a newer one since
            return await _load(store, keys[-1])
    raise AccessDeniedError(
        f"the keys of {store.url} are missing",
        code="key.missing",
        means="nothing can be sealed or read; the sealed data is untouched",
        hint=f"put the objects under {layout.KEYS} back from a copy of the repository: without them its data is lost",
    )


async def unlock(keyring: Keyring, credentials: Credentials) -> None:
    """Take the private keys out of their wrapping; see `Keyring.unlock`, with better words where an older document opens.

    Raises:
        AccessDeniedError: the credentials do not open the newest one.
    """
    try:
        await asyncio.to_thread(keyring.unlock, credentials)
    except AccessDeniedError as refusal:
        if refusal.code != "key.wrong":
            raise
        for key in await _listed(keyring.store):
            try:
                await asyncio.to_thread((await _load(keyring.store, key)).unlock, credentials)
            except (AccessDeniedError, BadDataError, NoObjectError):
                continue
            raise _replaced(keyring.store.url, key, keyring.key) from None
        raise


async def _listed(store: Store) -> list[str]:
    return sorted([info.key async for info in store.list(layout.KEYS) if layout.generation_of(info.key)])


async def _load(store: Store, key: str) -> Keyring:
    document = encoding.unseal(await store.read(key, _MAX_KEYS), key, KeyDocument)
    if document.generation != layout.generation_of(key):
        raise encoding.damaged(key, f"it says that it is of generation {document.generation}", "mismatch")
    return Keyring(store, document, key)


async def _remove_older(store: Store, newest: str) -> list[str]:
    left = []
    async for info in store.list(layout.KEYS):
        if layout.generation_of(info.key) and info.key != newest:
            try:
                await store.delete(info.key)
            except StoreError:
                left.append(info.key)
    await store.sync()
    return left


def _document(private: str, wrapped: list[Wrapped], generation: int, now_ns: LeaseClock) -> KeyDocument:
    public = str(pyrage.x25519.Identity.from_str(private).to_public())
    return KeyDocument(generation=generation, created_at=rfc3339(now_ns()), recipient=public, wrapped=wrapped)


def _wrapped(private: Sequence[str], recipients: Sequence[str], passphrase: str | None) -> list[Wrapped]:
    text = "\n".join(private).encode()
    found = [
        Wrapped(recipient=one, data=_wrapped_for(one, text)) for one in dict.fromkeys(recipients) if one != PASSPHRASE
    ]
    if passphrase is not None:
        data = base64.b64encode(pyrage.passphrase.encrypt(text, passphrase)).decode()
        found.append(Wrapped(recipient=PASSPHRASE, data=data))
    return found


def _wrapped_for(recipient: str, text: bytes) -> str:
    try:
        to = pyrage.ssh.Recipient if recipient.startswith("ssh-") else pyrage.x25519.Recipient
        return base64.b64encode(pyrage.encrypt(text, [to.from_str(recipient)])).decode()
    except pyrage.RecipientError:
        # A secret key that was given in place of its recipient is not repeated.
        shown = "what begins with AGE-SECRET-KEY-" if recipient.startswith("AGE-SECRET") else f"'{recipient[:80]}'"
        raise UsageError(
            f"{shown} is no recipient",
            code="usage.recipient",
            means="nothing was changed",
            hint="recipients begin with age1 (or ssh-ed25519); `jetkeep key new` makes an identity and prints its recipient",
        ) from None


def _public(private: str, key: str) -> str:
    try:
        return str(pyrage.x25519.Identity.from_str(private).to_public())
    except pyrage.IdentityError:
        raise encoding.damaged(key, "what it wraps is no key") from None


def _opened(wrapped: Wrapped, credentials: Credentials, key: str) -> bytes | None:
    try:
        data = base64.b64decode(wrapped.data, validate=True)
    except ValueError:
        raise encoding.damaged(key, "a wrapped key is no base64") from None
    try:
        if wrapped.recipient == PASSPHRASE:
            return pyrage.passphrase.decrypt(data, credentials.passphrase) if credentials.passphrase else None
        identities = [_identity(one) for one in credentials.identities]
        return pyrage.decrypt(data, identities) if identities else None
    except pyrage.DecryptError:
        return None


def _identity(text: str) -> pyrage.x25519.Identity | pyrage.ssh.Identity:
    try:
        if text.startswith("-----BEGIN"):
            return pyrage.ssh.Identity.from_buffer(text.encode())
        return pyrage.x25519.Identity.from_str(text)
    except pyrage.IdentityError:
        # Never the text itself.
        raise UsageError(
            "what was given as an identity is none",
            code="usage.identity",
            hint="an identity begins with AGE-SECRET-KEY-1; a file may hold several, one a line, and comments",
        ) from None


async def _store(store: Store, document: KeyDocument) -> str:
    data = encoding.seal(document)
    key = layout.keys_key(document.generation)
    with contextlib.suppress(AlreadyThereError):  # ours, if an answer was lost
        await create_surely(store, key, data, durable=True)
    # Some object stores tell several writers that each was first.
    if await store.read(key, _MAX_KEYS) != data:
        raise UsageError(
            f"somebody else changed the keys of {store.url} at the same time",
            code="usage.keys-changed",
            means="nothing was changed by this run",
            hint="look at `jetkeep key list`, then run it again",
        )
    return key


def _swapped(url: str, recipient: str) -> AccessDeniedError:
    return AccessDeniedError(
        f"{url} asks to seal for {recipient}, whose key its own keys do not hold",
        code="key.swapped",
        means="somebody changed it: what was backed up since is not readable for you, and may be for them",
        hint="put the objects under keys/ back from a copy, pin the recipient (sealed-to), and look into who can write there",
    )


def _replaced(url: str, older: str, newest: str) -> AccessDeniedError:
    return AccessDeniedError(
        f"the identity that was given opens {older} of {url}, and not {newest}, which replaced it",
        code="key.replaced",
        means="nothing was read; the data is untouched",
        hint=f"either its recipient was removed (`jetkeep key list`), or somebody else put {newest} there: then delete it, "
        "and look into who can write there",
    )


def _locked(url: str) -> AccessDeniedError:
    return AccessDeniedError(
        f"{url} is encrypted, and no identity was given",
        code="key.none",
        means="nothing was read; the data is untouched",
        hint="give --identity FILE, or set JETKEEP_IDENTITY (or JETKEEP_PASSPHRASE)",
    )
