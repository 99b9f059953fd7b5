"""Tell others of runs: a heartbeat that is missed when it stays away, webhooks (docs/reference/notifications.md)."""

from jetkeep.notify.messages import Told, tell

__all__ = ["Told", "tell"]
