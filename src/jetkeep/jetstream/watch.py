"""What the client hears beside its requests: refused subjects, lost connections."""

from __future__ import annotations

import re

from jetkeep.errors import ServerError

#: How soon a refusal or a lost connection is noticed by whoever waits for an answer.
NOTICE_S = 0.25
_VIOLATION = re.compile(r'permissions violation for (publish|subscription) to "?([^"\s]+)', re.IGNORECASE)


class Watch:
    """Collects the client's asynchronous errors, so that a request that got no answer can say why.

    A publish that is not permitted is answered by nobody: without this it looks like a time-out.
    """

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self._refused: dict[tuple[str, str], None] = {}
        self._disconnects = 0

    async def on_error(self, error: BaseException) -> None:
        """The client's error callback."""
        if found := _VIOLATION.search(str(error)):
            self._refused[found[1].lower(), found[2].lower()] = None
        self.errors = [*self.errors[-49:], error]

    async def on_disconnect(self) -> None:
        """The client's callback for a lost connection."""
        self._disconnects += 1

    @property
    def disconnects(self) -> int:
        """How often the connection was lost."""
        return self._disconnects

    def denied(self, subject: str, inbox: str = "") -> ServerError | None:
        """The error for publishing to `subject`, or listening on `inbox`, that the server refused; None if it did not.

        Both may have wildcards, for subjects whose last words only the server knows.
        """
        for kind, told in self._refused:
            asked = subject if kind == "publish" else inbox
            if asked and covers(asked.lower(), told):
                return ServerError(
                    f"the server does not permit to {'publish' if kind == 'publish' else 'subscribe'} to {asked}",
                    code="nats.permission",
                    means="nothing was changed by this request",
                    hint="give the user this permission (docs/reference/permissions.md); `jetkeep check` tries them all",
                )
        return None

    def trouble(self, since: int, subject: str, inbox: str = "") -> ServerError | None:
        """Why no answer will come: `denied`, or the connection was lost since `disconnects` was `since`; else None."""
        if refused := self.denied(subject, inbox):
            return refused
        return self.disconnected() if self._disconnects != since else None

    def disconnected(self, why: str = "") -> ServerError:
        """The error for a connection that was lost."""
        last = why or next((str(one) for one in reversed(self.errors) if str(one)), "")
        return ServerError(
            "the connection to NATS was lost" + (f": {last}" if last else ""),
            code="nats.disconnected",
            means="what was not finished does not count; finished backups are untouched",
            hint="look at the server, then run the command again",
            retryable=True,
        )


def covers(pattern: str, subject: str) -> bool:
    """Whether a subject with wildcards covers another one; the other may have wildcards itself."""
    if "*" not in pattern and ">" not in pattern:
        return pattern == subject
    words = pattern.split(".")
    others = subject.split(".")
    for at, word in enumerate(words):
        if word == ">":
            return len(others) > at
        if at >= len(others) or word not in ("*", others[at]):
            return False
    return len(words) == len(others)
