"""The NATS edge: the only package that speaks NATS (the drill's ordinary consumers excepted)."""

from jetkeep.jetstream.api import JetStream
from jetkeep.jetstream.connection import connect
from jetkeep.jetstream.listing import StreamListing

__all__ = ["JetStream", "StreamListing", "connect"]
