"""The NATS edge: the only package that speaks NATS (the drill's ordinary consumers excepted)."""

from jetkeep.jetstream.api import JetStream, StreamListing
from jetkeep.jetstream.connection import connect

__all__ = ["JetStream", "StreamListing", "connect"]
