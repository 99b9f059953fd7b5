"""The site that the errors of the troubleshooting page are provoked at."""

from tests.degraded.conftest import site

__all__ = ["site"]
