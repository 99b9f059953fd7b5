"""Settings from flags, the environment and the official CLI's contexts: the only reader of the environment."""

from jetkeep.config.places import cache_directory

__all__ = ["cache_directory"]
