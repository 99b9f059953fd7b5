"""Evidence of drills: canonical documents, signed, each with the digest of the one before (docs/reference/evidence.md)."""

from jetkeep.evidence.chain import Kept, Place, keep, keep_page, newest, next_place, numbers, read, read_page
from jetkeep.evidence.proof import Entry, Finding, Proof, gaps, prove

__all__ = [
    "Entry",
    "Finding",
    "Kept",
    "Place",
    "Proof",
    "gaps",
    "keep",
    "keep_page",
    "newest",
    "next_place",
    "numbers",
    "prove",
    "read",
    "read_page",
]
