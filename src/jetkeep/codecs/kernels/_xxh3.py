# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernel of the fingerprint: XXH3-128 with seed 0, after the xxHash specification, over messages in columns.

Where nothing is compiled the `xxhash` package hashes, message by message. Indexing is unchecked when compiled:
`hash_bytes` and `fingerprint` compare every length with its buffer first.
"""

from __future__ import annotations

from struct import pack

from xxhash import xxh3_128_digest

try:
    import cython
except ModuleNotFoundError:
    from jetkeep.codecs.kernels import _uncompiled as cython


COMPILED = cython.compiled
#: SHA-256 of this file with these 64 digits as zeros: tests find a binary that was compiled from another source.
SOURCE_DIGEST = "e54229ea35e66493094b7cfc6620057e381b69595bbf03aaa9e6cac01d913de1"

Bytes = cython.typedef(cython.pointer(cython.const[cython.uchar]))
Word = cython.typedef(cython.ulonglong)

# The specification's names: PRIME32_1 to 3, PRIME64_1 to 5, and the two multipliers of its avalanches.
P32_1 = cython.declare(cython.ulonglong, 0x9E3779B1)
P32_2 = cython.declare(cython.ulonglong, 0x85EBCA77)
P32_3 = cython.declare(cython.ulonglong, 0xC2B2AE3D)
P64_1 = cython.declare(cython.ulonglong, 0x9E3779B185EBCA87)
P64_2 = cython.declare(cython.ulonglong, 0xC2B2AE3D27D4EB4F)
P64_3 = cython.declare(cython.ulonglong, 0x165667B19E3779F9)
P64_4 = cython.declare(cython.ulonglong, 0x85EBCA77C2B2AE63)
P64_5 = cython.declare(cython.ulonglong, 0x27D4EB2F165667C5)
MX_1 = cython.declare(cython.ulonglong, 0x165667919E3779F9)
MX_2 = cython.declare(cython.ulonglong, 0x9FB21C651E98DF25)
LOW = cython.declare(cython.ulonglong, 0xFFFFFFFF)

SECRET = cython.declare(cython.uchar[192])
if cython.compiled:
    for _at, _byte in enumerate(
        bytes.fromhex(
            "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
            "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
            "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
            "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
        )
    ):
        SECRET[_at] = _byte


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def load32(data: Bytes) -> Word:
    low: cython.uint = data[0] | data[1] << 8 | data[2] << 16
    return low | cython.cast(cython.uint, data[3]) << 24


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def load64(data: Bytes) -> Word:
    return load32(data) | load32(data + 4) << 32


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def swap32(value: Word) -> Word:
    return (value & 255) << 24 | (value >> 8 & 255) << 16 | (value >> 16 & 255) << 8 | value >> 24 & 255


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def swap64(value: Word) -> Word:
    return swap32(value & LOW) << 32 | swap32(value >> 32)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def high_of(a: Word, b: Word) -> Word:
    """The upper 64 bits of the 128-bit product."""
    mask: Word = LOW
    a0: Word = a & mask
    a1: Word = a >> 32
    b0: Word = b & mask
    b1: Word = b >> 32
    middle: Word = a1 * b0
    cross: Word = (a0 * b0 >> 32) + (middle & mask) + a0 * b1
    return a1 * b1 + (middle >> 32) + (cross >> 32)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def fold(a: Word, b: Word) -> Word:
    return a * b ^ high_of(a, b)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def avalanche(h: Word) -> Word:
    h ^= h >> 37
    h *= MX_1
    return h ^ h >> 32


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def avalanche64(h: Word) -> Word:
    """The avalanche of the older XXH64, which XXH3 keeps for inputs of up to 3 bytes."""
    h ^= h >> 33
    h *= P64_2
    h ^= h >> 29
    h *= P64_3
    return h ^ h >> 32


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.locals(a=Word, b=Word, low=Word, high=Word, m=Word)
def hash_to_16(data: Bytes, size: cython.Py_ssize_t, out: cython.p_ulonglong) -> cython.void:
    key: Bytes = SECRET
    if size > 8:
        a, b = load64(data), load64(data + size - 8)
        m = a ^ b ^ load64(key + 32) ^ load64(key + 40)
        low, high = m * P64_1, high_of(m, P64_1)
        low += cython.cast(Word, size - 1) << 54
        b ^= load64(key + 48) ^ load64(key + 56)
        high += b + (b & LOW) * (P32_2 - 1)
        low ^= swap64(high)
        out[0], out[1] = avalanche(low * P64_2), avalanche(high_of(low, P64_2) + high * P64_2)
    elif size > 3:
        m = (load32(data) | load32(data + size - 4) << 32) ^ load64(key + 16) ^ load64(key + 24)
        a = P64_1 + (cython.cast(Word, size) << 2)
        low, high = m * a, high_of(m, a)
        high += low << 1
        low ^= high >> 3
        low ^= low >> 35
        low *= MX_2
        out[0], out[1] = low ^ low >> 28, avalanche(high)
    elif size:
        low = cython.cast(Word, data[0]) << 16 | cython.cast(Word, data[size >> 1]) << 24 | data[size - 1] | size << 8
        high = swap32(low)
        high = (high << 13 | high >> 19) & LOW
        out[0] = avalanche64(low ^ load32(key) ^ load32(key + 4))
        out[1] = avalanche64(high ^ load32(key + 8) ^ load32(key + 12))
    else:
        out[0], out[1] = (
            avalanche64(load64(key + 64) ^ load64(key + 72)),
            avalanche64(load64(key + 80) ^ load64(key + 88)),
        )


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def mix32(acc: cython.p_ulonglong, front: Bytes, back: Bytes, key: Bytes) -> cython.void:
    a: Word = load64(front)
    b: Word = load64(front + 8)
    c: Word = load64(back)
    d: Word = load64(back + 8)
    acc[0] = (acc[0] + fold(a ^ load64(key), b ^ load64(key + 8))) ^ (c + d)
    acc[1] = (acc[1] + fold(c ^ load64(key + 16), d ^ load64(key + 24))) ^ (a + b)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.locals(i=cython.Py_ssize_t, low=Word, high=Word)
def hash_to_240(data: Bytes, size: cython.Py_ssize_t, out: cython.p_ulonglong) -> cython.void:
    key: Bytes = SECRET
    acc: cython.ulonglong[2]
    acc[0], acc[1] = cython.cast(Word, size) * P64_1, 0
    if size <= 128:
        i = (size - 1) // 32
        while i >= 0:
            mix32(acc, data + 16 * i, data + size - 16 * (i + 1), key + 32 * i)
            i -= 1
    else:
        for i in range(4):
            mix32(acc, data + 32 * i, data + 32 * i + 16, key + 32 * i)
        acc[0], acc[1] = avalanche(acc[0]), avalanche(acc[1])
        for i in range(4, size // 32):
            mix32(acc, data + 32 * i, data + 32 * i + 16, key + 3 + 32 * (i - 4))
        mix32(acc, data + size - 16, data + size - 32, key + 103)
    low = acc[0] + acc[1]
    high = acc[0] * P64_1 + acc[1] * P64_4 + cython.cast(Word, size) * P64_2
    out[0], out[1] = avalanche(low), 0 - avalanche(high)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.locals(i=cython.int, value=Word, keyed=Word)
def stripe(acc: cython.p_ulonglong, data: Bytes, key: Bytes) -> cython.void:
    for i in range(8):
        value = load64(data + 8 * i)
        keyed = value ^ load64(key + 8 * i)
        acc[i ^ 1] += value
        acc[i] += (keyed & LOW) * (keyed >> 32)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.locals(i=cython.int)
def merge(acc: cython.p_ulonglong, key: Bytes, start: Word) -> Word:
    for i in range(4):
        start += fold(acc[2 * i] ^ load64(key + 16 * i), acc[2 * i + 1] ^ load64(key + 16 * i + 8))
    return avalanche(start)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.locals(i=cython.Py_ssize_t, n=cython.Py_ssize_t, blocks=cython.Py_ssize_t)
def hash_long(data: Bytes, size: cython.Py_ssize_t, out: cython.p_ulonglong) -> cython.void:
    key: Bytes = SECRET
    acc: cython.ulonglong[8]
    acc[0], acc[1], acc[2], acc[3] = P32_3, P64_1, P64_2, P64_3
    acc[4], acc[5], acc[6], acc[7] = P64_4, P32_2, P64_5, P32_1
    blocks = (size - 1) // 1024
    for n in range(blocks):
        for i in range(16):
            stripe(acc, data + 1024 * n + 64 * i, key + 8 * i)
        for i in range(8):
            acc[i] = (acc[i] ^ acc[i] >> 47 ^ load64(key + 128 + 8 * i)) * P32_1
    for i in range((size - 1 - 1024 * blocks) // 64):
        stripe(acc, data + 1024 * blocks + 64 * i, key + 8 * i)
    stripe(acc, data + size - 64, key + 121)
    out[0] = merge(acc, key + 11, cython.cast(Word, size) * P64_1)
    out[1] = merge(acc, key + 117, ~(cython.cast(Word, size) * P64_2))


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def hash128(data: Bytes, size: cython.Py_ssize_t, out: cython.p_ulonglong) -> cython.void:
    """Hashes `size` bytes; `out` takes the low and the high word."""
    if size <= 16:
        hash_to_16(data, size, out)
    elif size <= 240:
        hash_to_240(data, size, out)
    else:
        hash_long(data, size, out)


def hash_bytes(data: cython.const[cython.uchar][::1]) -> int:
    """XXH3-128 of the bytes, seed 0."""
    out: cython.ulonglong[2]
    if not cython.compiled:
        return int.from_bytes(xxh3_128_digest(data))
    with cython.nogil:
        hash128(cython.address(data[0]), len(data), out)
    return int(out[1]) << 64 | int(out[0])


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def put(out: cython.p_uchar, value: Word, size: cython.int) -> cython.void:
    i: cython.int
    for i in range(size):
        out[i] = value >> 8 * i & 255


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def copy(out: cython.p_uchar, data: Bytes, size: cython.Py_ssize_t) -> cython.void:
    i: cython.Py_ssize_t = 0
    while i + 8 <= size:
        put(out + i, load64(data + i), 8)
        i += 8
    while i < size:
        out[i] = data[i]
        i += 1


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def is_outside(low: cython.Py_ssize_t, high: cython.Py_ssize_t, size: cython.Py_ssize_t) -> cython.bint:
    return low < 0 or high < low or high > size


@cython.locals(i=cython.Py_ssize_t, rows=cython.Py_ssize_t, s=cython.Py_ssize_t, h=cython.Py_ssize_t)
@cython.locals(subject=cython.Py_ssize_t, header=cython.Py_ssize_t, longest=cython.Py_ssize_t)
@cython.locals(low=Word, high=Word, inside=cython.bint)
def fingerprint(
    seq: cython.const[cython.ulonglong][::1],
    ts: cython.const[cython.longlong][::1],
    subject_offsets: cython.const[cython.int][::1],
    subjects: cython.const[cython.uchar][::1],
    header_offsets: cython.const[cython.int][::1],
    headers: cython.const[cython.uchar][::1],
    payload_offsets: cython.const[cython.int][::1],
    payloads: cython.const[cython.uchar][::1],
) -> int:
    """The sum of the rows' hashes modulo 2^128 (docs/format.md, *Fingerprint*); -1 if an offset is outside its column."""
    rows = len(seq)
    assert len(ts) == rows
    assert len(subject_offsets) == len(header_offsets) == len(payload_offsets) == rows + 1
    if not cython.compiled:
        return _interpreted(seq, ts, subject_offsets, subjects, header_offsets, headers, payload_offsets, payloads)
    inside, longest, low, high = True, 0, 0, 0
    with cython.nogil:
        for i in range(rows):
            if (
                is_outside(subject_offsets[i], subject_offsets[i + 1], len(subjects))
                or is_outside(header_offsets[i], header_offsets[i + 1], len(headers))
                or is_outside(payload_offsets[i], payload_offsets[i + 1], len(payloads))
            ):
                inside = False
                break
            subject, header = subject_offsets[i + 1] - subject_offsets[i], header_offsets[i + 1] - header_offsets[i]
            longest = max(longest, subject + header)
    if not inside:
        return -1
    room: cython.uchar[::1] = bytearray(longest + 40)
    scratch: cython.p_uchar = cython.address(room[0])
    one: cython.ulonglong[2]
    with cython.nogil:
        for i in range(rows):
            s, h = subject_offsets[i], header_offsets[i]
            subject, header = subject_offsets[i + 1] - s, header_offsets[i + 1] - h
            put(scratch, seq[i], 8)
            put(scratch + 8, cython.cast(Word, ts[i]), 8)
            put(scratch + 16, subject, 4)
            put(scratch + 20, header, 4)
            copy(scratch + 24, cython.address(subjects[s]), subject)
            copy(scratch + 24 + subject, cython.address(headers[h]), header)
            hash128(cython.address(payloads[payload_offsets[i]]), payload_offsets[i + 1] - payload_offsets[i], one)
            put(scratch + 24 + subject + header, swap64(one[1]), 8)
            put(scratch + 32 + subject + header, swap64(one[0]), 8)
            hash128(scratch, 40 + subject + header, one)
            low += one[0]
            high += one[1] + (1 if low < one[0] else 0)
    return int(high) << 64 | int(low)


def _interpreted(
    seq: memoryview,
    ts: memoryview,
    subject_offsets: memoryview,
    subjects: memoryview,
    header_offsets: memoryview,
    headers: memoryview,
    payload_offsets: memoryview,
    payloads: memoryview,
) -> int:
    total = 0
    for i in range(len(seq)):
        spans = []
        for offsets, column in ((subject_offsets, subjects), (header_offsets, headers), (payload_offsets, payloads)):
            low, high = offsets[i], offsets[i + 1]
            if not 0 <= low <= high <= len(column):
                return -1
            spans.append(column[low:high])
        head = pack("<QqII", seq[i], ts[i], len(spans[0]), len(spans[1]))
        total += int.from_bytes(xxh3_128_digest(b"".join((head, *spans[:2], xxh3_128_digest(spans[2])))))
    return total % (1 << 128)
