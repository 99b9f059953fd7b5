"""Every error that jetkeep raises on purpose: one tree, each leaf with a stable code and an exit status.

    JetkeepError
    ├── UsageError               2   a flag, argument or configuration key is wrong
    ├── PartialError             3   some streams failed; the rest was done and kept
    ├── StoreError
    │   ├── NoRepositoryError   10   nothing that is a repository is there
    │   ├── LockedError         11   somebody holds what this needs
    │   ├── AccessDeniedError   12   the store refused, or the key is wrong
    │   ├── StoreFailedError    13   the store cannot be reached, is full, or failed
    │   └── OutcomeUnknownError 14   the answer was lost: look before acting
    ├── ServerError             20   NATS cannot be reached, refused or failed
    │   └── ApiError            20   JetStream answered with an error of its own
    ├── ClusterError            21   Kubernetes cannot be reached or refused
    ├── BadDataError            30   stored or received bytes are not what they must be
    ├── ComparisonError         31   what was restored is not what was captured
    ├── CannotRestoreError      40   the target cannot take this as asked
    └── InterruptedRunError    130   stopped by a signal

Codes are append-only: scripts match them. Anything else that reaches the command line is a bug (exit 1).
"""

from __future__ import annotations


class JetkeepError(Exception):
    """An error for people: what happened, what it means for the data, what to do.

    Attributes:
        code: stable identifier, `area.what`, never renamed.
        exit_status: process exit status (docs/reference/exit-status.md).
        means: what this means for the data, one sentence.
        hint: what to do next, one sentence; empty when nothing can be advised.
        retryable: the same call may succeed later without any change.
    """

    exit_status = 1
    default_code = "bug"
    retryable = False

    def __init__(
        self,
        what: str,
        *,
        code: str | None = None,
        means: str = "",
        hint: str = "",
        retryable: bool | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.code = code or self.default_code
        self.means = means
        self.hint = hint
        if retryable is not None:
            self.retryable = retryable

    def to_dict(self) -> dict[str, str | int]:
        """The error as it stands in `--json` documents."""
        return {
            "code": self.code,
            "exit_status": self.exit_status,
            "what": self.what,
            "means": self.means,
            "hint": self.hint,
        }


class UsageError(JetkeepError):
    """A flag, an argument or a configuration key is wrong."""

    exit_status = 2
    default_code = "usage"


class PartialError(JetkeepError):
    """Some streams failed; what succeeded was done and kept."""

    exit_status = 3
    default_code = "partial"


class StoreError(JetkeepError):
    """Something about the repository's store."""

    exit_status = 13
    default_code = "store.failed"


class NoRepositoryError(StoreError):
    """There is no repository at the place that was named."""

    exit_status = 10
    default_code = "repository.absent"


class LockedError(StoreError):
    """A lease of somebody else protects what this operation needs."""

    exit_status = 11
    default_code = "repository.locked"
    retryable = True


class AccessDeniedError(StoreError):
    """The store refused the operation, or the key is the wrong one."""

    exit_status = 12
    default_code = "store.denied"


class StoreFailedError(StoreError):
    """The store cannot be reached, has no room, or failed."""

    default_code = "store.failed"


class AlreadyThereError(StoreError):
    """Put-if-absent found an object of that name; the object is untouched."""

    default_code = "store.already-there"


class NoObjectError(StoreError):
    """There is no object of that name in the store."""

    default_code = "store.no-object"


class OutcomeUnknownError(StoreError):
    """The answer was lost: the object may or may not be there."""

    exit_status = 14
    default_code = "store.outcome-unknown"


class ServerError(JetkeepError):
    """NATS cannot be reached, refused the connection, stalled or failed."""

    exit_status = 20
    default_code = "nats.failed"


class ApiError(ServerError):
    """JetStream answered with an error of its own.

    Attributes:
        err_code: the server's `err_code`, e.g. 10059 (stream not found); 0 when it gave none.
        status: the server's `code`, e.g. 404.
    """

    default_code = "nats.api"

    def __init__(self, what: str, *, status: int = 0, err_code: int = 0, means: str = "", hint: str = "") -> None:
        super().__init__(what, means=means, hint=hint)
        self.status = status
        self.err_code = err_code


class ClusterError(JetkeepError):
    """Kubernetes cannot be reached, or refused."""

    exit_status = 21
    default_code = "cluster.failed"


class BadDataError(JetkeepError):
    """Stored or received bytes are not what they must be; nothing of them was used."""

    exit_status = 30
    default_code = "data.bad"


class ComparisonError(JetkeepError):
    """What was restored is not what was captured."""

    exit_status = 31
    default_code = "comparison.failed"


class CannotRestoreError(JetkeepError):
    """The target cannot take this restore as it was asked for."""

    exit_status = 40
    default_code = "restore.refused"


class InterruptedRunError(JetkeepError):
    """Stopped by a signal before the work was done."""

    exit_status = 130
    default_code = "interrupted"
