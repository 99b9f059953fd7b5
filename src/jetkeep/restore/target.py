"""What is known of the server that streams are restored to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jetkeep.model import JsonDict
from jetkeep.restore.fields import Version


@dataclass(frozen=True, slots=True)
class Existing:
    """A stream that the target has: its configuration, last sequence and, when it is an unfinished restore, whose."""

    config: JsonDict
    last_seq: int = 0
    claim: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """The target as it was surveyed. `account` is what `$JS.API.INFO` said; `busy` are streams that did not answer."""

    version: Version
    version_text: str
    max_payload: int
    clustered: bool = False
    streams: Mapping[str, Existing] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    account: JsonDict = field(default_factory=dict)

    def limits(self, replicas: int) -> JsonDict:
        """The account's limits for streams of so many replicas; tiered accounts have them by tier."""
        tiers = self.account.get("tiers") or {}
        whole: JsonDict = tiers.get(f"R{replicas}") or self.account
        return whole.get("limits") or {}

    def used(self, replicas: int) -> JsonDict:
        """What the account uses already, of the same tier."""
        tiers = self.account.get("tiers") or {}
        return tiers.get(f"R{replicas}") or self.account
