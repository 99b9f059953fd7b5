from __future__ import annotations

import random

import google_crc32c
import pytest

from jetkeep.codecs import s2
from jetkeep.codecs.kernels import _kernels
from jetkeep.codecs.s2 import MAX_CHUNK, S2Decoder, S2Encoder
from jetkeep.errors import BadDataError
from tests.kernel_sources import interpreted

S2_ID, SNAPPY_ID = b"\xff\x06\x00\x00S2sTwO", b"\xff\x06\x00\x00sNaPpY"
TEXT = b"".join(b"order %d of %d, " % (at, at % 7) for at in range(400))


@pytest.fixture(autouse=True, params=["running", "interpreted"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s2, "_kernels", _kernels if request.param == "running" else interpreted("_kernels"))


def decode(data: bytes, step: int = 0) -> bytes:
    decoder, out = S2Decoder(), bytearray()
    for at in range(0, len(data), step or len(data)):
        for part in decoder.feed(data[at : at + (step or len(data))]):
            out += part
    decoder.close()
    return bytes(out)


def chunk(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(3, "little") + body


def stored(data: bytes, crc_of: bytes | None = None) -> bytes:
    crc = google_crc32c.value(data if crc_of is None else crc_of)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return chunk(1, masked.to_bytes(4, "little") + data)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("data", [b"", b"x", TEXT, random.Random(1).randbytes(5000), bytes(2_500_000)])
def test_what_was_encoded_is_decoded(data: bytes, compress: bool) -> None:
    encoder = S2Encoder(compress=compress)
    frames = encoder.encode(data) + encoder.encode(b"") + encoder.encode(memoryview(TEXT))
    assert decode(frames) == data + TEXT


def test_compression_shrinks_and_is_left_out_where_it_does_not() -> None:
    noise = random.Random(1).randbytes(5000)
    assert len(S2Encoder().encode(TEXT)) < len(TEXT) // 2
    assert S2Encoder().encode(noise) == S2Encoder(compress=False).encode(noise)


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_pieces_may_have_any_size(step: int) -> None:
    assert decode(S2Encoder().encode(TEXT), step) == TEXT


@pytest.mark.parametrize("step", [0, 5])
def test_both_identifiers_and_chunks_that_may_be_skipped(step: int) -> None:
    frames = SNAPPY_ID + stored(b"one") + chunk(0x99, bytes(300)) + chunk(0xFE, b"") + S2_ID + stored(b"two")
    assert decode(frames, step) == b"onetwo"


def test_skipping_holds_nothing() -> None:
    decoder = S2Decoder()
    list(decoder.feed(S2_ID + b"\xfe\xff\xff\xff"))
    for _ in range(16):
        list(decoder.feed(bytes(1_000_000)))
    assert not decoder._pending
    with pytest.raises(BadDataError, match="cut off"):
        decoder.close()


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        (stored(b"x"), "does not begin"),
        (S2_ID + stored(b"x", crc_of=b"y"), "checksum"),
        (S2_ID + chunk(2, b"abcd"), "unknown"),
        (S2_ID + chunk(0x7F, b"abcd"), "unknown"),
        (S2_ID + chunk(0x80, b"abcd"), "unknown"),
        (S2_ID + chunk(1, b"abc"), "a chunk of 3 bytes"),
        (S2_ID + chunk(0xFF, b"S2sTwo"), "identifier"),
        (S2_ID + chunk(0xFF, b"S2sTwO!"), "identifier"),
        (S2_ID + b"\x00\xff\xff\xff", "a chunk of 16777215 bytes"),
        (S2_ID + chunk(0, bytes(4) + b"\x81\x80\x80\x02\x00a"), "claims 4194305 bytes"),
        (S2_ID + chunk(0, bytes(4) + b"\xff\xff\xff\xff\x7f\x00a"), "claims"),
        (SNAPPY_ID + chunk(0, bytes(4) + b"\x81\x80\x04\x00a"), "claims 65537 bytes"),
        (SNAPPY_ID + stored(bytes(65537)), "holds 65537 bytes"),
        (S2_ID + chunk(0, bytes(4)), "cut off"),
        (S2_ID + chunk(0, bytes(4) + b"\x05\x00a"), "corrupt"),
        (S2_ID + chunk(0, bytes(4) + b"\x08\x15\x00"), "corrupt"),
    ],
)
def test_what_the_format_does_not_allow_is_refused(frames: bytes, why: str) -> None:
    with pytest.raises(BadDataError, match=why):
        decode(frames)


def test_the_largest_chunk_that_is_allowed_passes() -> None:
    assert decode(S2_ID + stored(bytes(MAX_CHUNK))) == bytes(MAX_CHUNK)


@pytest.mark.parametrize("data", [b"", b"\xff\x06\x00", S2_ID[:9]])
def test_no_stream_is_refused(data: bytes) -> None:
    decoder = S2Decoder()
    list(decoder.feed(data))
    with pytest.raises(BadDataError):
        decoder.close()


def test_every_truncation_inside_a_chunk_is_refused() -> None:
    frames = S2Encoder().encode(TEXT[:700])
    for size in range(len(frames)):
        if size == len(S2_ID):
            continue  # an empty stream, which the layer above refuses
        with pytest.raises(BadDataError):
            decode(frames[:size] or b"\0")


def test_every_flipped_bit_is_refused_or_changes_nothing() -> None:
    data = TEXT[:300]
    frames = S2Encoder().encode(data)
    for bit in range(8 * len(frames)):
        flipped = bytearray(frames)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            assert decode(bytes(flipped)) == data, bit
        except BadDataError:
            continue
