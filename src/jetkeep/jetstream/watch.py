"""What the client hears beside its requests: refused subjects, lost connections."""

from __future__ import annotations

import asyncio
import re

from jetkeep.errors import ServerError

_VIOLATION = re.compile(r'permissions violation for (publish|subscription) to "?([^"\s]+)', re.IGNORECASE)


class Watch:
    """Collects the client's asynchronous errors, so that a request that got no answer can say why.

    A publish that is not permitted is answered by nobody: without this it looks like a time-out.
    """

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self._heard = asyncio.Event()
        self._disconnects = 0

    async def on_error(self, error: BaseException) -> None:
        """The client's error callback."""
        self.errors = [*self.errors[-49:], error]
        self._heard.set()

    async def on_disconnect(self) -> None:
        """The client's callback for a lost connection."""
        self._disconnects += 1
        self._heard.set()

    async def on_reconnect(self) -> None:
        """The client's callback for a connection that is back."""

    async def on_closed(self) -> None:
        """The client's callback for the end."""
        self._heard.set()

    @property
    def disconnects(self) -> int:
        """How often the connection was lost."""
        return self._disconnects

    def denied(self, subject: str) -> ServerError | None:
        """The error for a subject that the server refused, None when it did not."""
        for error in self.errors:
            found = _VIOLATION.search(str(error))
            # The client gives the server's words in lower case.
            if found and _covers(found[2].lower(), subject.lower()):
                return ServerError(
                    f"the server does not permit to {_verb(found[1])} {subject}",
                    code="nats.permission",
                    means="nothing was changed by this request",
                    hint="give the user this permission (docs/reference/permissions.md); `jetkeep check` tries all of them",
                )
        return None

    async def changed(self, since: int) -> None:
        """Return at the next error, or at once when the connection was lost since `disconnects` was `since`."""
        while self._disconnects == since:
            self._heard.clear()
            await self._heard.wait()
            if self.errors:
                return


def _verb(kind: str) -> str:
    return "publish to" if kind.lower() == "publish" else "subscribe to"


def _covers(told: str, subject: str) -> bool:
    return told == subject or (told.endswith(">") and subject.startswith(told[:-1]))
