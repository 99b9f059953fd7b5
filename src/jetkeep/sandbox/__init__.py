"""Throw-away real nats-servers for drill, demo and tests: on loopback, in a temporary directory, never left behind."""

from jetkeep.sandbox.binaries import fetch_binary, find_binary, pinned_version, pinned_versions
from jetkeep.sandbox.cluster import SandboxCluster
from jetkeep.sandbox.guard import Guard, guarded_directory
from jetkeep.sandbox.server import Sandbox

__all__ = [
    "Guard",
    "Sandbox",
    "SandboxCluster",
    "fetch_binary",
    "find_binary",
    "guarded_directory",
    "pinned_version",
    "pinned_versions",
]
