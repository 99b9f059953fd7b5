"""Settings from flags, the environment and the official CLI's contexts: the only reader of the environment."""

from jetkeep.config.connection import ConnectionSettings, connection_settings
from jetkeep.config.places import cache_directory

__all__ = ["ConnectionSettings", "cache_directory", "connection_settings"]
