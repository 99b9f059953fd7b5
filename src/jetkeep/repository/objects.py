"""Object stores: S3, GCS and Azure through obstore, the only module that speaks it.

One request an object, no multipart: an upload is there whole or not at all, on every store. A finished upload is durable.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from jetkeep.config.object_stores import ClientEnvironment, client_environment, shared_credentials
from jetkeep.errors import (
    AccessDeniedError,
    BadDataError,
    NoObjectError,
    StoreFailedError,
    UsageError,
)
from jetkeep.repository.layout import CLAIMS, INDEX, LEASES, RUNS, check_key
from jetkeep.repository.locking import Lock, Retention, ask
from jetkeep.repository.object_errors import explain
from jetkeep.repository.store import ObjectInfo

if TYPE_CHECKING:
    from jetkeep.repository.address import StoreOptions

#: A request that failed is made again for so long; what then remains is an error, or an outcome that is not known.
RETRY_S = 60
RETRIES = 8
_CONNECT_S = 10
#: What one listing request returns at most, on every store.
_PAGE = 1000
#: A client that asks for retention is made anew after this.
_LOCKING_NS = 3600 * 10**9
#: Clocks may differ by some of it, and retention cannot end in the past.
_MOMENT_S = 120
_AGAIN_S = (0.1, 1.0, 5.0)
_FAILURES = (BaseError, OSError)
_MISSING = re.compile(r"Missing \w+|Account must be specified|service account file")


class ObjectStore:
    """A prefix in a bucket."""

    def __init__(self, url: str, config: dict[str, Any], client: dict[str, Any], options: StoreOptions) -> None:
        self._url = url
        self._config, self._client = config, client
        self._ca_file = options.ca_file
        self._plain = _made(url, config, client)
        #: What each upload but leases and the index asks for.
        self.lock = Lock(options.lock_mode, options.lock_days or 1) if options.lock_mode else None
        self._locking: tuple[int, Any] | None = None

    @classmethod
    def at(cls, scheme: str, path: str, options: StoreOptions, environ: Mapping[str, str] | None = None) -> ObjectStore:
        """The store at `scheme://path`; nothing is looked at yet.

        Raises:
            UsageError: there is no bucket in it, or the options or variables cannot be used.
        """
        url = f"{scheme}://{path}".rstrip("/")
        if not path.split("/", maxsplit=1)[0]:
            raise UsageError(
                f"'{url}' names no bucket", code="usage.repo-scheme", hint=f"write {scheme}://BUCKET/PREFIX"
            )
        if any(part in ("", ".", "..") for part in path.rstrip("/").split("/")):
            raise UsageError(f"'{url}' has an empty part or a dotted one", code="usage.repo-scheme")
        around = client_environment(scheme, environ)
        config, client = _config(scheme, options, around, environ), _client(options, around)
        if options.lock_mode and scheme != "s3":
            raise UsageError(
                f"lock: {scheme}:// stores are not asked to lock each object",
                code="usage.store-settings",
                hint="give the bucket or container itself a retention rule (docs/how-to/object-lock.md), and leave lock away",
            )
        return cls(url, config, client, options)

    @property
    def url(self) -> str:
        """The bucket and prefix; credentials are never part of it."""
        return self._url

    @property
    def remote(self) -> bool:
        """Yes."""
        return True

    async def create(self, key: str, data: bytes | memoryview, *, durable: bool = True) -> None:
        """Create an object; see Store.create. It is durable in any case."""
        # Both are replaced, and worth nothing a moment later.
        plain = self.lock is None or key.startswith((LEASES, INDEX, RUNS, CLAIMS))
        await self._put(self._plain if plain else self._locking_client(), key, data, "create")

    def _locking_client(self) -> Any:
        """The same place, by a client that asks for retention with each upload: from now on, give or take an hour."""
        assert self.lock is not None
        now = time.time_ns()
        if self._locking is None or not 0 <= now - self._locking[0] < _LOCKING_NS:
            client = {**self._client, "default_headers": self.lock.headers(now)}
            self._locking = (now, _made(self._url, self._config, client))
        return self._locking[1]

    async def try_lock(self, key: str, data: bytes) -> Retention | None:
        """Create an object that is locked for a moment; see LockingStore."""
        assert self.lock is not None
        client = {**self._client, "default_headers": self.lock.headers(time.time_ns(), _MOMENT_S)}
        await self._put(_made(self._url, self._config, client), key, data, "create")
        return await self.retention(key)

    async def retention(self, key: str) -> Retention | None:
        """How long the store keeps an object; see LockingStore."""
        if not self._url.startswith("s3:"):
            return None
        try:
            signed = await obstore.sign_async(self._plain, "HEAD", check_key(key), timedelta(minutes=5))
        except _FAILURES as failure:
            raise explain(self._url, "read", key, failure) from failure
        return await asyncio.to_thread(ask, signed, self._ca_file)

    async def replace(self, key: str, data: bytes) -> None:
        """Put an object whether or not it is there; for leases."""
        await self._put(self._plain, key, data, "overwrite")

    async def _put(self, client: Any, key: str, data: bytes | memoryview, mode: str) -> None:
        try:
            await obstore.put_async(client, check_key(key), data, mode=mode, use_multipart=False)  # type: ignore[arg-type]
        except _FAILURES as failure:
            raise explain(self._url, "write", key, failure) from failure

    async def sync(self) -> None:
        """Nothing: what was answered is durable."""

    async def read(self, key: str, max_bytes: int) -> bytes:
        """A whole object; see Store.read."""
        try:
            found = await obstore.get_async(self._plain, check_key(key))
            size = found.meta["size"]
            if size <= max_bytes:
                data = (await found.bytes_async()).to_bytes()
                if len(data) == size:
                    return data
                raise StoreFailedError(
                    f"the store sent {len(data)} of the {size} bytes of {key}",
                    code="store.cut",
                    means="nothing of it was used",
                    hint="run it again",
                    retryable=True,
                )
        except _FAILURES as failure:
            raise explain(self._url, "read", key, failure) from failure
        raise BadDataError(
            f"{key} has {size} bytes, more than the {max_bytes} that it may have",
            code="data.damaged",
            means="what depends on this object cannot be read",
            hint="run `jetkeep verify` to see which backups it touches",
        )

    async def read_range(self, key: str, start: int, length: int) -> bytes:
        """A part of an object; see PartialReads."""
        try:
            return (await obstore.get_range_async(self._plain, check_key(key), start=start, length=length)).to_bytes()
        except _FAILURES as failure:
            raise explain(self._url, "read", key, failure) from failure

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """All objects whose key begins with `prefix`: one request for each thousand below its folder."""
        folder, after, waits = prefix.rpartition("/")[0], "", list(_AGAIN_S)
        while True:
            try:
                async for some in obstore.list(self._plain, folder or None, offset=after or None, chunk_size=_PAGE):
                    for one in some:
                        after = one["path"]
                        if after.startswith(prefix):
                            modified = one["last_modified"]
                            yield ObjectInfo(after, one["size"], int(modified.timestamp() * 1e6) * 1000)
            except _FAILURES as failure:
                problem = explain(self._url, "list", prefix, failure)
                # A listing of nothing is empty; only a bucket can be absent.
                if isinstance(problem, NoObjectError):
                    return
                if not (problem.retryable and waits):
                    raise problem from failure
                # The client does not repeat an answer that was cut; object stores list in the order of keys.
                await asyncio.sleep(waits.pop(0))
            else:
                return

    async def delete(self, key: str) -> None:
        """Delete an object; where the bucket keeps versions, a marker hides it."""
        waits = list(_AGAIN_S)
        while True:
            try:
                await obstore.delete_async(self._plain, check_key(key))
            except _FAILURES as failure:
                problem = explain(self._url, "delete", key, failure)
                if isinstance(problem, NoObjectError):
                    return
                if not (problem.retryable and waits):
                    raise problem from failure
                # The client deletes by a request that it does not repeat when the line breaks.
                await asyncio.sleep(waits.pop(0))
            else:
                return

    async def remove_unfinished(self, before_ns: int) -> int:
        """None: an upload is whole or is not there."""
        return 0

    async def free_bytes(self) -> int | None:
        """Not known."""
        return None


def _made(url: str, config: dict[str, Any], client: dict[str, Any]) -> Any:
    retries = {
        "max_retries": RETRIES,
        "retry_timeout": timedelta(seconds=RETRY_S),
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=10), "base": 2},
    }
    try:
        return from_url(url, config=config, client_options=client, retry_config=retries)  # type: ignore[call-overload]
    except (BaseError, OSError, ValueError) as failure:
        if _MISSING.search(str(failure)):
            raise AccessDeniedError(
                f"there are no whole credentials for {url}",
                code="store.no-credentials",
                means="finished backups are untouched",
                hint="set them as docs/reference/stores.md says: key and secret, account, or service account file",
            ) from None
        # The library's words can quote a setting's value, and a setting may be a secret.
        raise UsageError(
            f"the settings of {url} cannot be used ({type(failure).__name__})",
            code="usage.store-settings",
            hint="look at the store's table in the configuration and at the AWS_*, GOOGLE_* or AZURE_* variables",
        ) from None


def _client(options: StoreOptions, around: ClientEnvironment) -> dict[str, Any]:
    client: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=_CONNECT_S),
        "read_timeout": timedelta(seconds=options.timeout_s),
        # A segment over a line of 1 MB/s: what counts is that bytes flow.
        "timeout": timedelta(seconds=max(600.0, options.timeout_s)),
        "allow_http": options.allow_http or around.allow_http,
    }
    if ca_file := options.ca_file or around.ca_file:
        try:
            client["root_certificate"] = Path(ca_file).read_bytes()
        except OSError as failure:
            raise UsageError(
                f"ca-file: cannot read {ca_file}: {failure.strerror}", code="usage.store-settings"
            ) from None
    return client


def _config(
    scheme: str, options: StoreOptions, around: ClientEnvironment, environ: Mapping[str, str] | None
) -> dict[str, Any]:
    config: dict[str, Any] = dict(options.extra)
    endpoint = options.endpoint or around.endpoint
    if endpoint.startswith("http://") and not (options.allow_http or around.allow_http):
        raise UsageError(
            f"the endpoint {endpoint} is plain http",
            code="usage.plain-http",
            means="nothing was sent: data and signatures could be read on the way",
            hint="use https; for a network that you trust say allow-http = true (or AWS_ALLOW_HTTP=true)",
        )
    if scheme == "s3":
        # The store compares what arrived; buckets with a lock ask for it.
        config.setdefault("checksum_algorithm", "sha256")
        for name, value in shared_credentials(environ).items():
            config.setdefault(name, value)
        if options.path_style is not None:
            config["virtual_hosted_style_request"] = not options.path_style
        if options.region:
            config["region"] = options.region
    if options.endpoint:
        config["base_url" if scheme == "gs" else "endpoint"] = options.endpoint
    return config
