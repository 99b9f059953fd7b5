"""The errors of a repository that say what to do instead."""

from __future__ import annotations

from jetkeep.errors import AccessDeniedError, BadDataError, NoRepositoryError, UsageError
from jetkeep.repository import layout


def no_repository(url: str) -> NoRepositoryError:
    """Nothing that is a repository is there."""
    return NoRepositoryError(
        f"there is no repository at {url}",
        means="nothing was read or written",
        hint="check --repo or JETKEEP_REPO; `jetkeep init` or the first `jetkeep backup` creates one",
    )


def headless(url: str) -> NoRepositoryError:
    """Backups are there, and not the object that makes them a repository."""
    return NoRepositoryError(
        f"there are backups at {url}, but {layout.REPOSITORY} is missing: it was deleted, or only a part was copied",
        code="repository.headless",
        means="nothing was read or written; the backups may well be good",
        hint=f"put {layout.REPOSITORY} back from where the backups came from, or from another copy of the repository",
    )


def not_empty(url: str, key: str) -> UsageError:
    """A repository is to be created where something is, for instance `key`."""
    if key == layout.REPOSITORY:
        return UsageError(
            f"{url} is a repository already",
            code="usage.repository-exists",
            means="it was not changed",
            hint="use it, or choose another directory",
        )
    if layout.label_of(key) or layout.kind_of(key):
        return UsageError(
            f"{url} was a repository, but its {layout.REPOSITORY} is missing",
            code="usage.not-empty",
            means="nothing was written there; the backups in it may well be good",
            hint=f"put {layout.REPOSITORY} back from a copy of the repository, or choose another directory",
        )
    return UsageError(
        f"{url} is not empty and is no repository (it holds {key})",
        code="usage.not-empty",
        means="nothing was written there",
        hint="choose an empty or absent directory",
    )


def label_taken(label: str) -> UsageError:
    """Another backup has the label."""
    return UsageError(
        f"there is a backup {label} already",
        code="usage.label-taken",
        means="that backup is untouched; this run committed nothing",
        hint="choose another --label, or none",
    )


def not_sealed(url: str) -> AccessDeniedError:
    """It is to be sealed, and its document says that it is not."""
    return AccessDeniedError(
        f"{url} is not encrypted, and the configuration says that it is to be",
        code="key.not-sealed",
        means="nothing was written: whatever is stored there can be read by whoever holds the store",
        hint=f"if nobody changed {layout.REPOSITORY} there, make an encrypted repository elsewhere and `jetkeep copy` into it",
    )


def not_pinned(url: str, recipient: str, pinned: str) -> AccessDeniedError:
    """Its keys ask to seal for another recipient than the configuration allows."""
    return AccessDeniedError(
        f"{url} asks to seal for {recipient}, the configuration allows only {pinned}",
        code="key.not-pinned",
        means="nothing was written: somebody may have put another key there to read what you store",
        hint="if it was you who rotated the key, change sealed-to in the configuration; else look into who can write there",
    )


def no_backup(label: str, url: str) -> UsageError:
    """There is no backup of that label."""
    return UsageError(
        f"there is no backup {label} in {url}",
        code="usage.no-such-backup",
        means="nothing was done",
        hint="`jetkeep info` lists the labels",
    )


def missing(key: str) -> BadDataError:
    """An object that is named is not there."""
    return BadDataError(
        f"{key} is missing",
        code="data.missing",
        means="what depends on this object cannot be read; other backups are not affected",
        hint="run `jetkeep verify` to see which backups it touches, and restore from another one",
    )


def files_unsealed(url: str) -> UsageError:
    """Files, with the keys that are in them, are about to be stored where nothing is encrypted."""
    return UsageError(
        f"the repository at {url} is not encrypted: files, and the keys in them, could be read there",
        code="usage.files-unsealed",
        means="nothing of this backup was stored there",
        hint="use a repository that was made by `jetkeep init --encrypt-to`; `backup` takes --force-unsealed",
    )


def same_repository(one: str, other: str) -> UsageError:
    """Two places are meant to be two repositories, and are not."""
    return UsageError(
        f"{one} and {other} are the same repository, or a copy of its files",
        code="usage.same-repository",
        means="nothing was written to the second",
        hint="choose another place; a copy of the files is no second repository, and needs no `jetkeep copy`",
    )
