"""What a system call's failure means to the owner of a backup, and what to do about it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from jetkeep.errors import (
    AccessDeniedError,
    AlreadyThereError,
    NoObjectError,
    StoreError,
    StoreFailedError,
)

_SAFE = "finished backups are untouched; what this run wrote and did not commit does not count"
_UNTOUCHED = "nothing was changed"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_HANDLES = (errno.EMFILE, errno.ENFILE)
_BROKEN = (errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.EUCLEAN)


def explain(root: Path, verb: str, key: str, failure: OSError) -> StoreError:
    """The error for a failure to `verb` the object `key` (empty: the whole) of the directory `root`."""
    where = f"{root}/{key}" if key else str(root)
    words = f"cannot {verb} {where}: {failure.strerror or failure}"
    means = _SAFE if verb in ("write", "sync") else _UNTOUCHED
    told = _told(verb, where, failure)
    if told is not None:
        return told
    if failure.errno in _REFUSED:
        return _refused(verb, words, means, failure)
    if failure.errno in _FULL:
        left = shutil.disk_usage(nearest(root)).free
        return StoreFailedError(
            f"{words} ({left} bytes are left)",
            code="store.full",
            means=means,
            hint="make room, for instance with `jetkeep expire`, or use a larger volume; then run it again",
        )
    hint = "look at the disk or mount, then run it again"
    if failure.errno == errno.ENOTDIR:
        hint = "a repository is a directory: name one with --repo"
    elif failure.errno in _NO_HANDLES:
        hint = "this process may not open more files: raise its limit (`ulimit -n`), then run it again"
    elif failure.errno in _BROKEN:
        hint = (
            "the disk or mount failed: see the system's log, copy the repository away, run `jetkeep verify` on the copy"
        )
    return StoreFailedError(words, means=means, hint=hint, retryable=failure.errno != errno.ENOTDIR)


def _told(verb: str, where: str, failure: OSError) -> StoreError | None:
    """The failures that tell what is there."""
    if isinstance(failure, FileExistsError):
        return AlreadyThereError(f"{where} is already there", means="it was not touched")
    if verb == "read" and failure.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return NoObjectError(
            f"{where} is not there",
            means="what depends on this object cannot be read",
            hint="run `jetkeep verify` to see which backups it touches",
        )
    return None


def _refused(verb: str, words: str, means: str, failure: OSError) -> AccessDeniedError:
    if failure.errno == errno.EROFS:
        hint = "mount the file system for writing, or choose another --repo"
    elif verb in ("read", "list"):
        hint = f"make it readable for user {os.geteuid()}"
    elif os.geteuid() == 0:
        hint = "the file system or the security policy refuses; choose another --repo"
    else:
        hint = f"make the directory writable for user {os.geteuid()}, or choose another --repo"
    return AccessDeniedError(words, means=means, hint=hint)


def nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(one for one in (path, *path.parents) if one.exists())
