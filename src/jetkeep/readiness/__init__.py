"""Can every part reach every other, with the permissions that it needs? Probes that change nothing at any server."""

from jetkeep.readiness.findings import Level, Probe, Readiness, Thresholds
from jetkeep.readiness.server import probe_server
from jetkeep.readiness.store import probe_store
from jetkeep.readiness.stored import probe_repository
from jetkeep.readiness.velero import probe_velero

__all__ = [
    "Level",
    "Probe",
    "Readiness",
    "Thresholds",
    "probe_repository",
    "probe_server",
    "probe_store",
    "probe_velero",
]
