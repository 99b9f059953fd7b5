"""From what a person types after `--repo` to a store."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

from jetkeep.errors import UsageError
from jetkeep.repository.local import LocalStore

if TYPE_CHECKING:
    from jetkeep.repository.objects import ObjectStore

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
#: Schemes of object stores: the bucket or container, then a prefix.
OBJECT_SCHEMES = ("s3", "gs", "az")


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What a URL does not say of an object store; whatever is None is left to the environment (docs/reference/stores.md).

    Attributes:
        endpoint: URL of a store that is not the provider's own.
        path_style: the bucket in the path (default) or in the host's name.
        ca_file: certificate authorities to trust besides the system's, PEM.
        allow_http: plain http is used only when this says so.
        lock_mode, lock_days: each object is written with this retention; None leaves it to the bucket's rule.
        timeout_s: how long a request may take before it is made again, in seconds.
        extra: further settings by obstore's names.
    """

    endpoint: str | None = None
    region: str | None = None
    path_style: bool | None = None
    ca_file: str | None = None
    allow_http: bool = False
    lock_mode: Literal["governance", "compliance"] | None = None
    lock_days: int | None = None
    timeout_s: float = 90.0
    extra: dict[str, str] = field(default_factory=dict, repr=False)


def store_at(address: str, options: StoreOptions | None = None) -> LocalStore | ObjectStore:
    """The store at a path or a `file://`, `s3://`, `gs://` or `az://` URL; nothing is looked at yet.

    Raises:
        UsageError: the URL's scheme is not known, there is no path in it, or the options do not fit together.
    """
    found = _URL.fullmatch(address)
    if found is None:
        return LocalStore(Path(address).expanduser())
    scheme, path = found.groups()
    if scheme in OBJECT_SCHEMES:
        from jetkeep.repository.objects import ObjectStore  # noqa: PLC0415 - a local repository needs none of it

        return ObjectStore.at(scheme, path, options or StoreOptions())
    if scheme != "file":
        raise UsageError(
            f"a repository at {scheme}:// is not supported",
            code="usage.repo-scheme",
            hint="give a path or a file://, s3://, gs:// or az:// URL",
        )
    if not path.startswith("/"):
        raise UsageError(
            f"'{address}' names no absolute path",
            code="usage.repo-scheme",
            hint="write file:///path with three slashes, or the path alone",
        )
    return LocalStore(Path(unquote(path)))
