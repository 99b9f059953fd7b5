"""Documents may be decoded by several threads at once, also the first ones of a process."""

from __future__ import annotations

import subprocess
import sys

DECODE = """
import sys, threading
sys.setswitchinterval(1e-6)
from jetkeep.repository import encoding
from jetkeep.repository.documents import Manifest
manifest = Manifest(
    source="s", stream="S", timeline="t", label="l", kind="full", method="snapshot", reason="", captured_at_ns=1,
    server_version="", config={}, created_at="", state={}, messages=0, first_seq=0, last_seq=0, bytes=0, first_ts_ns=0,
    last_ts_ns=0, fingerprint="0" * 32, segments=[], deleted="", gaps=[], consumers=[], notes=[],
)
data = encoding.encode_manifest(manifest)
together, same = threading.Barrier(8), []
def work():
    together.wait()
    same.append(encoding.decode_manifest(data, "key") == manifest)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(same == [True] * 8)
"""


def test_the_first_documents_of_a_process_may_be_decoded_by_many_threads() -> None:
    """msgspec builds what it knows of a type at its first use, and two threads that do so at once end the process."""
    runs = [
        subprocess.Popen([sys.executable, "-c", DECODE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    answers = [one.communicate(timeout=60) for one in runs]
    assert [(one.returncode, out) for one, (out, _) in zip(runs, answers, strict=True)] == [(0, "True\n")] * 6
