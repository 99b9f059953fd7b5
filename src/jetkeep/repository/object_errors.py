"""What an object store's failures mean: obstore's exceptions and the servers' words to errors for people.

S3, GCS and Azure (and what stands in for them) refuse in words; several refusals come as obstore's unspecific error.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from jetkeep.errors import (
    AccessDeniedError,
    AlreadyThereError,
    JetkeepError,
    NoObjectError,
    OutcomeUnknownError,
    StoreError,
    StoreFailedError,
)

_UNTOUCHED = "finished backups are untouched"


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


class _Refusal(NamedTuple):
    """What a store says when it refuses, and what that means."""

    words: re.Pattern[str]
    kind: type[StoreError]
    code: str
    what: str
    hint: str
    means: str = _UNTOUCHED


_REFUSALS = (
    _Refusal(
        _words(r"RequestTimeTooSkewed|difference between the request time"),
        AccessDeniedError,
        "store.clock",
        "the store refused to {at}: this machine's clock and the store's differ",
        "set the clock (NTP), then run it again",
    ),
    _Refusal(
        _words(r"ExpiredToken|TokenRefreshRequired|token (?:has|is) expired|AuthenticationFailed.*expired"),
        AccessDeniedError,
        "store.credentials-expired",
        "the store refused to {at}: the credentials have expired",
        "get new ones, then run it again",
    ),
    _Refusal(
        _words(r"SignatureDoesNotMatch|InvalidAccessKeyId|InvalidToken|AuthenticationFailed|invalid_grant"),
        AccessDeniedError,
        "store.credentials",
        "the store refused to {at}: it does not know these credentials ({gist})",
        "check the key and its secret, and that they are of this store (endpoint, account)",
    ),
    _Refusal(
        _words(r"NoSuchBucket|InvalidBucketName|bucket does not exist|ContainerNotFound|container does not exist"),
        StoreFailedError,
        "store.no-bucket",
        "there is no bucket for {url}",
        "check the name, the region and the endpoint, or create the bucket (with versioning and lock, if wanted)",
        "nothing was written; jetkeep never creates a bucket",
    ),
    _Refusal(
        _words(
            r"PermanentRedirect|incorrectly configured region|AuthorizationHeaderMalformed|IllegalLocationConstraint|region '[^']*' is wrong"
        ),
        StoreFailedError,
        "store.region",
        "the bucket of {url} is in another region: {gist}",
        "set `region` (or AWS_REGION) to the bucket's",
    ),
    _Refusal(
        _words(r"RetentionPolicyNotMet|retention policy|object retention|BlobImmutable|immutable due to|ObjectLocked"),
        AccessDeniedError,
        "store.retained",
        "the store keeps what you wanted it to {at}: {gist}",
        "wait until its retention is over",
    ),
    _Refusal(
        _words(r"169\.254\.169\.254|metadata\.google\.internal|latest/api/token|(?:no|missing) credentials"),
        AccessDeniedError,
        "store.no-credentials",
        "there are no credentials for {url}",
        "set them as docs/reference/stores.md says: variables, a credentials file, workload identity, or instance metadata",
    ),
)
#: The numbers with their words only: the client also says how long it took, which can be 403.1 ms.
_DENIED = _words(r"AccessDenied|Forbidden|AuthorizationFailure|\b401 Unauthorized")
#: The request cannot have reached the store.
_NOT_SENT = _words(
    r"error trying to connect|dns error|connection refused|tcp connect|invalid peer certificate|scheme is not allowed"
)
#: It was answered: nothing of it was done.
_ANSWERED = _words(r"\b4\d\d [A-Z][a-z]+")
_MESSAGE, _CODE = _words(r"<Message>([^<]+)</Message>"), _words(r"<Code>([^<]+)</Code>")
_CAUSE = _words(
    r"connection refused|connection reset[^\")]*|connection closed[^\")]*|dns error|(?:operation )?timed out|"
    r"invalid peer certificate: \w+|\b50\d [A-Z][a-z]+(?: [A-Z][a-z]+)*|incomplete message|broken pipe"
)


def explain(url: str, verb: str, key: str, failure: Exception) -> JetkeepError:
    """The error for what obstore raised while it should `verb` (write, read, list, delete) the object `key`."""
    name, words = type(failure).__name__, str(failure)
    if name in ("AlreadyExistsError", "PreconditionError"):
        return AlreadyThereError(f"{key} is there already")
    at = f"{verb} {key or 'the listing'} at {url}"
    for one in _REFUSALS:
        if one.words.search(words):
            what = one.what.format(at=at, url=url, gist=gist(words))
            return one.kind(what, code=one.code, means=one.means, hint=one.hint)
    if isinstance(failure, FileNotFoundError) or name == "NotFoundError":
        return NoObjectError(f"there is no {key} in {url}")
    if name in ("PermissionDeniedError", "UnauthenticatedError") or _DENIED.search(words):
        return AccessDeniedError(
            f"the store refused to {at}: {gist(words)}",
            means=_UNTOUCHED,
            hint="give these credentials the permission (docs/reference/permissions.md), or use others; `jetkeep check --store` says which are missing",
        )
    return _failure(url, verb, at, words)


def _failure(url: str, verb: str, at: str, words: str) -> StoreError:
    if _NOT_SENT.search(words):
        return StoreFailedError(
            f"the store at {url} cannot be reached: {gist(words)}",
            code="store.unreachable",
            means=_UNTOUCHED,
            hint="check the endpoint, the network, and the certificate authorities (ca-file)",
            retryable=True,
        )
    if verb == "write" and not _ANSWERED.search(words):
        return OutcomeUnknownError(
            f"no answer came to the request to {at}: {gist(words)}",
            means=f"the object may be there or not; {_UNTOUCHED}",
            hint="run it again: what is there is found and used",
            retryable=True,
        )
    return StoreFailedError(
        f"the store failed to {at}: {gist(words)}",
        means=_UNTOUCHED,
        hint="run it again; if it repeats, look at the store's own health",
        retryable=True,
    )


def gist(words: str) -> str:
    """What a failure says, on one line, without the library's own structures."""
    if message := _MESSAGE.search(words):
        code = _CODE.search(words)
        return " ".join((f"{code[1]}: {message[1]}" if code else message[1]).split())[:300]
    if cause := _CAUSE.search(words):
        return cause[0].lower()
    said = words.partition("\n\nDebug source:")[0]
    return " ".join(said.rpartition(" - ")[2].split())[:300]
