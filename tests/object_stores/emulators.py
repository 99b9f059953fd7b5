"""What stands in for Azure and GCS: Azurite (npm) and fake-gcs-server (Go), installed where these toolchains are.

`python -m tests.object_stores.emulators` installs both into the cache; the tests marked `stores` run what is there.
Azurite is Microsoft's own. fake-gcs-server speaks the JSON API only, GCS's clients here the XML API: reads, listings and
deletions agree, uploads do not, so a thin translation of uploads stands before it. What that proves of uploads to GCS is
little; docs/reference/stores.md says so.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from jetkeep.config import cache_directory
from jetkeep.sandbox import Guard

AZURITE, FAKE_GCS = "3.35.0", "v1.52.3"
CONTAINER = "tests"
READY_SECONDS = 30.0
#: Azurite's published account, the same everywhere.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def azurite() -> Path | None:
    """Azurite's program if it is installed."""
    path = _folder() / f"azurite-{AZURITE}" / "node_modules" / ".bin" / "azurite-blob"
    return path if path.exists() else None


def fake_gcs() -> Path | None:
    """fake-gcs-server if it is installed."""
    path = _folder() / f"fake-gcs-server-{FAKE_GCS}" / "fake-gcs-server"
    return path if path.exists() else None


def install() -> None:
    """Install what is not there and whose toolchain is; say what was left out, and why."""
    for name, found, tool, command in (
        ("azurite", azurite(), "npm", ["install", "--silent", "--no-fund", "--no-audit", f"azurite@{AZURITE}"]),
        ("fake-gcs-server", fake_gcs(), "go", ["install", f"github.com/fsouza/fake-gcs-server@{FAKE_GCS}"]),
    ):
        program = shutil.which(tool)
        if found or program is None:
            print(f"{name}: {'there' if found else f'left out, because there is no {tool}'}", flush=True)  # noqa: T201
            continue
        folder = _folder() / f"{name}-{AZURITE if tool == 'npm' else FAKE_GCS}"
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([program, *command], cwd=folder, env={**os.environ, "GOBIN": str(folder)}, check=False)
        print(f"{name}: {'left out: it could not be installed' if done.returncode else 'installed'}", flush=True)  # noqa: T201


def _folder() -> Path:
    return cache_directory().absolute() / "emulators"


@contextmanager
def running_azurite(program: Path, container: str = CONTAINER) -> Iterator[dict[str, str]]:
    """The variables with which jetkeep uses a fresh Azurite, with this container."""
    port = _free_port()
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--skipApiVersionCheck", "--silent"]
    with _running([str(program), *options, "--disableTelemetry", "--inMemoryPersistence"], port):
        _make_container(port, container)
        yield {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_ENDPOINT": f"http://127.0.0.1:{port}/{ACCOUNT}",
            "AZURE_ALLOW_HTTP": "true",
        }


def _make_container(port: int, container: str) -> None:
    date, version = formatdate(usegmt=True), "2021-08-06"
    lines = ["PUT", *[""] * 11, f"x-ms-date:{date}", f"x-ms-version:{version}"]
    text = "\n".join([*lines, f"/{ACCOUNT}/{ACCOUNT}/{container}", "restype:container"])
    signature = base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
    headers = {"x-ms-date": date, "x-ms-version": version, "Authorization": f"SharedKey {ACCOUNT}:{signature}"}
    status, told, _ = _ask(port, "PUT", f"/{ACCOUNT}/{container}?restype=container", b"", headers)
    assert status == 201, told


@contextmanager
def running_gcs(program: Path, bucket: str = CONTAINER) -> Iterator[dict[str, str]]:
    """The variables with which jetkeep uses a fresh fake-gcs-server, with this bucket."""
    port = _free_port()
    options = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    with _running([str(program), *options, "-public-host", f"127.0.0.1:{port}"], port):
        body = json.dumps({"name": bucket}).encode()
        status, told, _ = _ask(port, "POST", "/storage/v1/b?project=p", body, {"Content-Type": "application/json"})
        assert status == 200, told
        with _Front(("127.0.0.1", 0), _translation_to(port)) as front:
            thread = threading.Thread(target=front.serve_forever)
            thread.start()
            try:
                account = {
                    "gcs_base_url": f"http://127.0.0.1:{front.server_port}",
                    "disable_oauth": True,
                    **dict.fromkeys(("client_email", "private_key", "private_key_id"), ""),
                }
                yield {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account), "GOOGLE_ALLOW_HTTP": "true"}
            finally:
                front.shutdown()
                thread.join()


class _Front(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


def _translation_to(port: int) -> type[BaseHTTPRequestHandler]:
    class Translation(BaseHTTPRequestHandler):
        """Uploads of the XML API as the JSON API has them; all else as it is."""

        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_PUT(self) -> None:
            bucket, _, name = urllib.parse.unquote(self.path.partition("?")[0]).lstrip("/").partition("/")
            query = {"uploadType": "multipart", "name": name}
            if (generation := self.headers.get("x-goog-if-generation-match")) is not None:
                query["ifGenerationMatch"] = generation
            boundary = "jetkeep-part"
            head = f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{json.dumps({'name': name})}\r\n"
            head += f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
            body = head.encode() + self._body() + f"\r\n--{boundary}--\r\n".encode()
            headers = {"Content-Type": f"multipart/related; boundary={boundary}"}
            path = f"/upload/storage/v1/b/{bucket}/o?{urllib.parse.urlencode(query)}"
            status, told, _ = _ask(port, "POST", path, body, headers)
            made = json.loads(told) if status == 200 else {}
            facts = {"ETag": made["etag"], "x-goog-generation": made["generation"]} if made else {}
            self._tell(status, b"" if made else told, facts)

        def _pass(self) -> None:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            self._tell(*_ask(port, self.command, self.path, self._body(), headers))

        do_GET = do_HEAD = do_DELETE = do_POST = _pass  # noqa: N815 - the base class's names

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("content-length") or 0))

        def _tell(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "date"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)) if self.command != "HEAD" else headers["Content-Length"])
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Nothing."""

    return Translation


def _ask(port: int, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    guard = Guard(Path(tempfile.mkdtemp(prefix="jetkeep-emulator-")))
    child = guard.start(command, guard.folder / "log", cwd=guard.folder)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not _listens(port):
            assert child.poll() is None, (guard.folder / "log").read_text()
            assert time.monotonic() < deadline, (guard.folder / "log").read_text()
            time.sleep(0.05)
        yield
    finally:
        os.killpg(child.pid, 9)
        child.wait()
        guard.forget()
        guard.close()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found: int = taken.getsockname()[1]
        return found


if __name__ == "__main__":
    install()
