"""How an account of the configuration is reached: by its own table alone."""

from __future__ import annotations

import os
from collections.abc import Mapping

from jetkeep.config.connection import VARIABLES, ConnectionSettings, connection_settings
from jetkeep.config.file import SourceTable


def source_settings(table: SourceTable, environ: Mapping[str, str] = os.environ) -> ConnectionSettings:
    """The settings of one source. NATS_* variables do not count: one NATS_URL would make all sources the same account.

    Raises:
        UsageError: no such context or file, a secret that cannot be resolved, or something that is not supported.
    """
    return connection_settings(table.flags(), {key: value for key, value in environ.items() if key not in VARIABLES})
