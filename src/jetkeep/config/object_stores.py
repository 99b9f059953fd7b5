"""What the environment says of object stores and obstore does not read itself.

obstore reads keys, tokens, endpoint and region from the variables, web identity (IRSA, workload identity), container
credentials and instance metadata; it does not read Amazon's shared files, and not the client's settings beside ours.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jetkeep.errors import UsageError

#: A variable that says where credentials come from, so that no file is wanted.
_ELSEWHERE = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}


_PREFIX = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT"),
}


class ClientEnvironment(NamedTuple):
    """Of a store of one scheme: its endpoint, whether plain http is wanted, and further authorities (a path); empty when not said."""

    endpoint: str
    allow_http: bool
    ca_file: str


def client_environment(scheme: str, environ: Mapping[str, str] | None = None) -> ClientEnvironment:
    """What the variables say of the connection to a store at `s3`, `gs` or `az`."""
    environ = os.environ if environ is None else environ
    endpoint = next((environ[name] for name in _ENDPOINTS[scheme] if environ.get(name)), "")
    allow = environ.get(f"{_PREFIX[scheme]}_ALLOW_HTTP", "").lower() in ("1", "true", "yes")
    if scheme == "az" and environ.get("AZURE_STORAGE_USE_EMULATOR", "").lower() in ("1", "true", "yes"):
        allow = True
    ca_file = (environ.get("AWS_CA_BUNDLE", "") if scheme == "s3" else "") or environ.get("SSL_CERT_FILE", "")
    return ClientEnvironment(endpoint, allow, ca_file)


def shared_credentials(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Keys and region of the profile AWS_PROFILE (or `default`), by obstore's names; empty where there are none.

    Raises:
        UsageError: AWS_PROFILE names a profile that is in neither file, or a file cannot be read.
    """
    environ = os.environ if environ is None else environ
    profile = environ.get("AWS_PROFILE", "")
    if not profile and any(environ.get(name) for name in _ELSEWHERE):
        return {}
    home = Path(environ.get("HOME") or Path.home()) / ".aws"
    secrets = _section(Path(environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials"), profile or "default")
    name = f"profile {profile}" if profile and profile != "default" else "default"
    settings = _section(Path(environ.get("AWS_CONFIG_FILE") or home / "config"), name)
    if profile and not secrets and not settings:
        raise UsageError(
            f"there is no AWS profile '{profile}'",
            code="usage.store-settings",
            hint="check AWS_PROFILE, AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE",
        )
    found = {ours: value for theirs, ours in _KEYS.items() if (value := secrets.get(theirs) or settings.get(theirs))}
    if (region := settings.get("region")) and not (environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")):
        found["region"] = region
    return found


def _section(path: Path, name: str) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None, default_section="\0")
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError):
        # Not the parser's words: they quote the line.
        raise UsageError(f"cannot read {path}: it is no INI file", code="usage.store-settings") from None
    return dict(parser[name]) if parser.has_section(name) else {}
