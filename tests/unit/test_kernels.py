from __future__ import annotations

import importlib
import random
import subprocess
import sys

import pytest
import xxhash

from jetkeep.codecs.kernels import COMPILED, _kernels, _xxh3
from tests.kernel_sources import NAMES, interpreted, stated_and_true_digest


@pytest.mark.parametrize("name", NAMES)
def test_what_runs_was_compiled_from_this_source(name: str) -> None:
    stated, true = stated_and_true_digest(name)
    assert stated == true, f'write SOURCE_DIGEST = "{true}" into {name}.py, then `make setup`'
    running = importlib.import_module(f"jetkeep.codecs.kernels.{name}")
    assert stated == running.SOURCE_DIGEST, f"{running.__file__} is of another source: run `make setup`"


def test_all_kernels_are_found() -> None:
    assert {"_kernels", "_xxh3", "_blocks"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_kernels_run_where_cython_is_not_installed(name: str) -> None:
    program = (
        f"import sys; sys.modules['cython'] = None\nfrom tests.kernel_sources import interpreted; interpreted({name!r})"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_xxh3_is_the_packages_for_every_short_length() -> None:
    data = random.Random(1).randbytes(2048)
    for size in range(2049):
        assert _xxh3.hash_bytes(data[:size]) == xxhash.xxh3_128_intdigest(data[:size]), size


def test_xxh3_is_the_packages_for_long_inputs() -> None:
    source = random.Random(2)
    for _ in range(300):
        data = source.randbytes(source.randrange(2048, 300_000))
        assert _xxh3.hash_bytes(data) == xxhash.xxh3_128_intdigest(data), len(data)


def test_one_byte_blocks_leave_pythons_own_bytes_alone() -> None:
    # Compiled, a fresh bytes object is written to: it must not be one that Python shares.
    assert _kernels.s2_decode(b"\x00A", 0, 2, 1) == b"A"
    assert bytes(1) == b"\x00"
    assert _kernels.s2_decode(b"", 0, 0, 0) == b""


def _mutated(data: bytes, source: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(source.randrange(1, 4)):
        at = source.randrange(len(made))
        match source.randrange(3):
            case 0:
                made[at] = source.randrange(256)
            case 1:
                del made[at : at + source.randrange(1, 5)]
            case _:
                made[at:at] = source.randbytes(source.randrange(1, 5))
        made = made or bytearray(1)
    return bytes(made)


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled: there is nothing to compare")
def test_compiled_and_interpreted_s2_agree_on_hostile_blocks() -> None:
    source, slow = random.Random(3), interpreted("_kernels")
    # Literals of two forms, each kind of copy, each form of repeat.
    block = b"\x1cabcdefgh" + b"\xf0\x3f" + bytes(range(64)) + b"\x11\x08" + b"\x16\x20\x00" + b"\x1f\x08\0\0\0"
    block += b"\x09\x00" + b"\x15\x00\x07" + b"\x19\x00\x10\x00" + b"\x1d\x00\x01\x00\x00"
    size = 8 + 64 + 8 + 6 + 8 + 6 + 15 + (260 + 16) + (65540 + 1)
    assert slow.s2_decode(block, 0, len(block), size)
    assert _kernels.s2_decode(block, 0, len(block), size) == slow.s2_decode(block, 0, len(block), size)
    for _ in range(20_000):
        bad, claimed = _mutated(block, source), source.choice((0, 1, 100, 391, size, size - 65541))
        assert _kernels.s2_decode(bad, 0, len(bad), claimed) == slow.s2_decode(bad, 0, len(bad), claimed)
