"""Rules about the way that data goes: no plaintext beyond the machine or the cluster."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from jetkeep.audit.document import Node
from jetkeep.audit.findings import Finding, Place
from jetkeep.audit.rules import RULES
from jetkeep.audit.settings import Settings
from jetkeep.audit.workload import Workload

_HTTP = re.compile(r"^http://", re.IGNORECASE)
_STORE_VARIABLES = {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AZURE_ENDPOINT", "GOOGLE_BASE_URL"}


def endpoints(configurations: Iterable[Settings], workloads: Iterable[Workload]) -> Iterator[Finding]:
    """Every store, server or hook that is reached without TLS."""
    for settings in configurations:
        yield from _stores(settings)
        yield from _servers(settings)
        for group in ("heartbeat", "notifications"):
            for name, table in settings.group(group).items():
                url = str(table.get("url", ""))
                if _HTTP.match(url) and not _near(url):
                    where = ".".join(one for one in (group, name) if one)
                    yield settings.finding("JK012", f"{where} is told over plain http", where, "url")
    for one in workloads:
        yield from _variables(one)


def _stores(settings: Settings) -> Iterator[Finding]:
    for name, table in settings.group("repositories").items():
        where = f"repositories.{name}"
        if _HTTP.match(str(table.get("endpoint", ""))) and not _here(str(table["endpoint"])):
            yield settings.finding("JK012", f"{where} is reached over plain http", where, "endpoint")
        elif table.get("allow-http") is True and not _here(str(table.get("endpoint", ""))):
            yield settings.finding("JK012", f"{where} allows plain http", where, "allow-http")


def _servers(settings: Settings) -> Iterator[Finding]:
    for name, table in settings.group("sources").items():
        secure = table.get("tlsca") or table.get("tlscert") or table.get("tlsfirst") or table.get("context")
        urls = [one.strip() for one in str(table.get("server", "")).split(",") if one.strip()]
        far = [
            one for one in urls if not one.startswith("tls://") and not _near(one if "://" in one else f"nats://{one}")
        ]
        if far and not secure:
            where = f"sources.{name}"
            yield settings.finding(
                "JK012", f"{where} is outside of the cluster, and nothing asks for TLS", where, "server"
            )


def _variables(one: Workload) -> Iterator[Finding]:
    for container in one.containers:
        for variable in container.get("env").all:
            name, value = variable.get("name").text, variable.get("value")
            if name in _STORE_VARIABLES and _HTTP.match(value.text) and not _here(value.text):
                yield _finding(one, value, f"{name} is plain http")
            elif name == "AWS_ALLOW_HTTP" and value.text.lower() == "true":
                yield _finding(one, value, f"{name} is set")


def _here(url: str) -> bool:
    """On this machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or (bool(host) and ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return False


def _near(url: str) -> bool:
    """On this machine or inside of the cluster, by its name."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    inside = "." not in host or host.endswith((".svc", ".cluster.local", ".local", ".internal"))
    return _here(url) or inside or bool(re.fullmatch(r"[a-z0-9-]+\.[a-z0-9-]+", host) and not _public_suffix(host))


def _public_suffix(host: str) -> bool:
    """Whether `name.word` is a domain of the internet rather than `service.namespace`."""
    return host.rpartition(".")[2] in {
        "com",
        "net",
        "org",
        "io",
        "dev",
        "cloud",
        "eu",
        "de",
        "fr",
        "uk",
        "nl",
        "us",
        "co",
        "app",
    }


def _finding(one: Workload, node: Node, what: str) -> Finding:
    place = Place(one.document.file, node.line, one.document.title)
    return Finding(RULES["JK012"], place, what, RULES["JK012"].severity)
