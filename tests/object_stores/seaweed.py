"""A real S3 server for tests: SeaweedFS, on loopback, in a temporary directory, never left behind.

As it comes, it makes an absent bucket when its administrator puts an object there: jetkeep must not let that happen.

    with Seaweed() as seaweed:
        name = seaweed.create_bucket()
        environment = seaweed.environment()          # AWS_*, for jetkeep as the server's administrator
        environment = seaweed.environment("writer")  # as one of its users

Tests take the fixtures `seaweed` (one server a test process) and `bucket` (a fresh prefix, AWS_* set) of tests/conftest.py.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from jetkeep.sandbox import Guard

REGION = "us-east-1"
ADMIN = "admin"
#: What each further user may do, in SeaweedFS's words; `Read:bucket/prefix*` narrows one.
#: Those with nothing get what a bucket's policy grants them (tests/object_stores/roles.py).
USERS: Mapping[str, Sequence[str]] = {
    "reader": ["Read", "List"],
    "writer": ["Read", "List", "Write"],
    "stranger": [],
    "of-reader": [],
    "of-writer": [],
    "of-expirer": [],
}
READY_SECONDS = 30.0
_STARTS = 4
#: Everything it opens, so that two servers on one machine never meet.
_PORTS = ("master", "volume", "filer", "s3", "admin")


class Keys(NamedTuple):
    """An S3 user's credentials."""

    access_key: str
    secret_key: str


class Answer(NamedTuple):
    """What the server answered to a request."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Bucket(NamedTuple):
    """A fresh prefix in a bucket of its own server."""

    name: str
    prefix: str
    server: Seaweed

    @property
    def url(self) -> str:
        """What `--repo` takes."""
        return f"s3://{self.name}/{self.prefix}"


class Seaweed:
    """The server; `with Seaweed() as seaweed:` starts it, waits until it stores, and kills it at the end.

    Args:
        users: names to what each may do besides `admin`, who may everything.
        address: where it listens.

    Attributes:
        endpoint: the S3 API's URL.
    """

    def __init__(self, users: Mapping[str, Sequence[str]] = USERS, address: str = "127.0.0.1") -> None:
        self._address = address
        self.users: dict[str, Sequence[str]] = {ADMIN: ["Admin", "Read", "List", "Tagging", "Write"], **users}
        self.endpoint = ""
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._guard = Guard(Path(tempfile.mkdtemp(prefix="jetkeep-seaweed-")))
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start it on free ports; again on others when one of them was taken meanwhile."""
        config = self._guard.folder / "s3.json"
        config.write_text(json.dumps({"identities": [self._identity(name) for name in self.users]}))
        for _ in range(_STARTS):
            if self._start_once(config):
                return
            self.kill()
        raise RuntimeError("SeaweedFS did not start:\n" + self.log.read_text(errors="replace")[-2000:])

    @property
    def log(self) -> Path:
        """What it says."""
        return self._guard.folder / "log"

    def kill(self) -> None:
        """End it as a power cut would; `start` brings it back, with its data, on other ports."""
        if self._process is None:
            return
        # Its orderly end takes up to half a minute.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._guard.forget()
        self._process = None
        for port in self._ports.values():
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)

    def close(self) -> None:
        """Kill it and remove what it stored."""
        self.kill()
        self._guard.close()

    def keys(self, user: str = ADMIN) -> Keys:
        """A user's credentials."""
        assert user in self.users, user
        return Keys(f"{user}-key", f"{user}-secret")

    def environment(self, user: str = ADMIN, endpoint: str = "") -> dict[str, str]:
        """The variables with which jetkeep (and any S3 client) uses it as this user, perhaps through a proxy."""
        access, secret = self.keys(user)
        return {
            "AWS_ACCESS_KEY_ID": access,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ALLOW_HTTP": "true",
        }

    def create_bucket(self, name: str = "", *, locked: bool = False) -> str:
        """Make a bucket, with object lock (and versions) when asked for; its name."""
        name = name or f"bucket-{next(self._numbers)}"
        headers = {"x-amz-bucket-object-lock-enabled": "true"} if locked else {}
        answer = self.request("PUT", f"/{name}", headers=headers)
        assert answer.status == 200, answer
        return name

    def request(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None, user: str = ADMIN
    ) -> Answer:
        """Any S3 request, signed as this user; `path` is `/bucket/key?query`, not yet quoted but for its query."""
        where, _, query = path.partition("?")
        pairs = sorted(urllib.parse.parse_qsl(query, keep_blank_values=True))
        target = urllib.parse.quote(where)
        asked = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in pairs)
        host = urllib.parse.urlsplit(self.endpoint).netloc
        signed = _signed(method, target, asked, {"host": host, **(headers or {})}, body, self.keys(user))
        connection = http.client.HTTPConnection(host, timeout=20)
        try:
            connection.request(method, f"{target}?{asked}" if asked else target, body=body, headers=signed)
            told = connection.getresponse()
            return Answer(told.status, {name.lower(): value for name, value in told.getheaders()}, told.read())
        finally:
            connection.close()

    def _identity(self, name: str) -> dict[str, object]:
        access, secret = self.keys(name)
        pair = {"accessKey": access, "secretKey": secret}
        return {"name": name, "credentials": [pair], "actions": list(self.users[name])}

    def _start_once(self, config: Path) -> bool:
        free = _free_ports(2 * len(_PORTS))
        self._ports = {
            f"{name}{what}": port
            for port, (name, what) in zip(free, itertools.product(_PORTS, ("", ".grpc")), strict=True)
        }
        data = self._guard.folder / "data"
        data.mkdir(exist_ok=True)
        ports = [
            f"-{name.partition('.')[0]}.port{'.grpc' * name.endswith('.grpc')}={port}"
            for name, port in self._ports.items()
        ]
        command = [
            str(Path(sys.executable).parent / "weed"), "mini", f"-dir={data}", f"-ip={self._address}", f"-ip.bind={self._address}", *ports,
            f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false",
            "-webdav=false", "-admin.ui=false", "-master.telemetry=false",
        ]  # fmt: skip
        self._process = self._guard.start(command, self.log, cwd=self._guard.folder)
        self.endpoint = f"http://{self._address}:{self._ports['s3']}"
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._stores():
                return True
            time.sleep(0.05)
        return False

    def _stores(self) -> bool:
        """Whether an object can be put: the last thing that works after a start."""
        try:
            made = self.request("PUT", "/ready")
            return made.status in (200, 409) and self.request("PUT", "/ready/ready", body=b"x").status == 200
        except (OSError, http.client.HTTPException):
            return False


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in taken]


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="-_.~")


def _signed(
    method: str, target: str, query: str, headers: Mapping[str, str], body: bytes, keys: Keys
) -> dict[str, str]:
    """The headers with a signature of version 4."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    every = {
        **{name.lower(): value for name, value in headers.items()},
        "x-amz-date": now,
        "x-amz-content-sha256": digest,
    }
    names = ";".join(sorted(every))
    lines = "".join(f"{name}:{every[name].strip()}\n" for name in sorted(every))
    scope = f"{now[:8]}/{REGION}/s3/aws4_request"
    canonical = "\n".join([method, target, query, lines, names, digest])
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{keys.secret_key}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    credential = f"Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    return {**every, "authorization": f"AWS4-HMAC-SHA256 {credential}"}
