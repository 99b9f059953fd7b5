"""Figures of repositories for monitoring (docs/reference/metrics.md)."""

from jetkeep.observe.families import exposition, registry_of
from jetkeep.observe.gather import Place, Source, observe
from jetkeep.observe.observation import Observation

__all__ = ["Observation", "Place", "Source", "exposition", "observe", "registry_of"]
