# cython: language_level=3, boundscheck=True, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels of the v1 snapshot form: HighwayHash-64, and block records to columns and back.

Ordinary typed Python: compiled by Cython where a C compiler is there, interpreted elsewhere, same results.
Nothing here raises on hostile input: functions return a status and their callers word the error. Every length
is checked against its buffer before it is used; only `load32` and `load64` index unchecked, behind such a check.
"""

from __future__ import annotations

try:
    import cython
except ModuleNotFoundError:
    from jetkeep.codecs.kernels import _uncompiled as cython

COMPILED = cython.compiled
#: SHA-256 of this file with these 64 digits as zeros: tests find a binary that was compiled from another source.
SOURCE_DIGEST = "a01c21aa8a63f0129878151203471757eab9719810f20b8f4b356f94edd8321d"


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.boundscheck(False)
def load32(data: cython.const[cython.uchar][::1], at: cython.Py_ssize_t) -> cython.ulonglong:
    if not cython.compiled:
        return int.from_bytes(data[at : at + 4], "little")
    low: cython.uint = data[at] | data[at + 1] << 8 | data[at + 2] << 16
    return low | cython.cast(cython.uint, data[at + 3]) << 24


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.boundscheck(False)
def load64(data: cython.const[cython.uchar][::1], at: cython.Py_ssize_t) -> cython.ulonglong:
    if not cython.compiled:
        return int.from_bytes(data[at : at + 8], "little")
    return load32(data, at) | load32(data, at + 4) << 32


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def signed(word: cython.ulonglong) -> cython.longlong:
    if not cython.compiled:
        return word - (1 << 64) if word >> 63 else word
    return cython.cast(cython.longlong, word)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def store(data: cython.uchar[::1], at: cython.Py_ssize_t, value: cython.ulonglong, size: cython.int) -> cython.void:
    i: cython.int
    for i in range(size):
        data[at + i] = (value >> 8 * i) & 0xFF


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def copy(
    source: cython.const[cython.uchar][::1],
    lo: cython.Py_ssize_t,
    size: cython.Py_ssize_t,
    target: cython.uchar[::1],
    at: cython.Py_ssize_t,
) -> cython.bint:
    """Copies `size` bytes; False, and nothing copied, where either side is too short."""
    if size < 0 or lo < 0 or at < 0 or size > source.shape[0] - lo or size > target.shape[0] - at:
        return False
    if not cython.compiled:
        target[at : at + size] = source[lo : lo + size]
        return True
    i: cython.Py_ssize_t
    with cython.boundscheck(False):
        for i in range(size):
            target[at + i] = source[lo + i]
    return True


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def rotate_halves(v: cython.ulonglong, n: cython.int) -> cython.ulonglong:
    low_half: cython.ulonglong = 0xFFFFFFFF
    low: cython.ulonglong = v & low_half
    high: cython.ulonglong = v >> 32
    low = (low << n | low >> (32 - n)) & low_half
    high = (high << n | high >> (32 - n)) & low_half
    return low | high << 32


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def zip_even(b: cython.ulonglong, a: cython.ulonglong) -> cython.ulonglong:
    """The even half of HighwayHash's byte shuffle: bytes a3 b4 a2 a5 b6 a1 b7 a0, lowest first."""
    m3: cython.ulonglong = 0xFF000000
    m4: cython.ulonglong = 0xFF00000000
    m5: cython.ulonglong = 0xFF0000000000
    m6: cython.ulonglong = 0xFF000000000000
    top: cython.ulonglong = 0xFF
    return (
        (a & m3 | b & m4) >> 24
        | (a & m5 | b & m6) >> 16
        | a & 0xFF0000
        | (a & 0xFF00) << 32
        | (b >> 56) << 48
        | (a & top) << 56
    )


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def zip_odd(b: cython.ulonglong, a: cython.ulonglong) -> cython.ulonglong:
    """The odd half of the shuffle: bytes b3 a4 b2 b5 b1 a6 b0 a7, lowest first."""
    m3: cython.ulonglong = 0xFF000000
    m4: cython.ulonglong = 0xFF00000000
    m5: cython.ulonglong = 0xFF0000000000
    m6: cython.ulonglong = 0xFF000000000000
    return (
        (b & m3 | a & m4) >> 24
        | b & 0xFF0000
        | (b & m5) >> 16
        | (b & 0xFF00) << 24
        | (a & m6) >> 8
        | (b & 0xFF) << 48
        | (a >> 56) << 56
    )


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def words_only(
    data: cython.const[cython.uchar][::1], at: cython.Py_ssize_t, size: cython.Py_ssize_t
) -> cython.ulonglong:
    if size >= 8:
        return load64(data, at)
    return load32(data, at) if size >= 4 else 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.locals(v00=cython.ulonglong, v01=cython.ulonglong, v02=cython.ulonglong, v03=cython.ulonglong)
@cython.locals(v10=cython.ulonglong, v11=cython.ulonglong, v12=cython.ulonglong, v13=cython.ulonglong)
@cython.locals(p0=cython.ulonglong, p1=cython.ulonglong, p2=cython.ulonglong, p3=cython.ulonglong)
@cython.locals(q0=cython.ulonglong, q1=cython.ulonglong, q2=cython.ulonglong, q3=cython.ulonglong)
@cython.locals(a0=cython.ulonglong, a1=cython.ulonglong, a2=cython.ulonglong, a3=cython.ulonglong)
@cython.locals(at=cython.Py_ssize_t, i=cython.Py_ssize_t, m=cython.ulonglong, low_half=cython.ulonglong)
def mix(
    state: cython.ulonglong[::1],
    head: cython.const[cython.uchar][::1],
    heads: cython.Py_ssize_t,
    data: cython.const[cython.uchar][::1],
    lo: cython.Py_ssize_t,
    size: cython.Py_ssize_t,
    last: cython.bint,
) -> cython.ulonglong:
    """HighwayHash-64 over `heads` whole packets of `head`, then `size` bytes of `data` from `lo`.

    `last`: returns the hash and leaves `state` (v0, v1, mul0, mul1: 16 words) as it was; otherwise `state` takes the
    whole packets in and a rest is ignored. The caller has checked that both ranges are inside their buffers.
    """
    m, low_half = 0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF
    v00, v01, v02, v03 = state[0], state[1], state[2], state[3]
    v10, v11, v12, v13 = state[4], state[5], state[6], state[7]
    p0, p1, p2, p3 = state[8], state[9], state[10], state[11]
    q0, q1, q2, q3 = state[12], state[13], state[14], state[15]
    rest: cython.int = size % 32
    whole: cython.int = rest - rest % 4
    packets: cython.Py_ssize_t = heads + size // 32
    steps: cython.Py_ssize_t = packets
    if last:
        steps += 5 if rest else 4
    for i in range(steps):
        if i < heads:
            at = 32 * i
            a0, a1, a2, a3 = (
                load64(head, at),
                load64(head, at + 8),
                load64(head, at + 16),
                load64(head, at + 24),
            )
        elif i < packets:
            at = lo + 32 * (i - heads)
            a0, a1, a2, a3 = (
                load64(data, at),
                load64(data, at + 8),
                load64(data, at + 16),
                load64(data, at + 24),
            )
        elif rest and i == packets:
            a0 = (cython.cast(cython.ulonglong, rest) << 32) + rest
            v00, v01, v02, v03 = (v00 + a0) & m, (v01 + a0) & m, (v02 + a0) & m, (v03 + a0) & m
            v10, v11 = rotate_halves(v10, rest), rotate_halves(v11, rest)
            v12, v13 = rotate_halves(v12, rest), rotate_halves(v13, rest)
            at = lo + size - rest
            a0, a1 = words_only(data, at, whole), words_only(data, at + 8, whole - 8)
            a2, a3 = words_only(data, at + 16, whole - 16), words_only(data, at + 24, whole - 24)
            if rest & 16:
                a3 |= load32(data, at + rest - 4) << 32
            elif rest & 3:
                a2 = data[at + whole] | data[at + whole + (rest % 4 >> 1)] << 8 | data[at + rest - 1] << 16
        else:
            a0, a1 = v02 >> 32 | (v02 << 32 & m), v03 >> 32 | (v03 << 32 & m)
            a2, a3 = v00 >> 32 | (v00 << 32 & m), v01 >> 32 | (v01 << 32 & m)
        v10, v11, v12, v13 = (
            (v10 + p0 + a0) & m,
            (v11 + p1 + a1) & m,
            (v12 + p2 + a2) & m,
            (v13 + p3 + a3) & m,
        )
        p0 ^= (v10 & low_half) * (v00 >> 32)
        p1 ^= (v11 & low_half) * (v01 >> 32)
        p2 ^= (v12 & low_half) * (v02 >> 32)
        p3 ^= (v13 & low_half) * (v03 >> 32)
        v00, v01, v02, v03 = (v00 + q0) & m, (v01 + q1) & m, (v02 + q2) & m, (v03 + q3) & m
        q0 ^= (v00 & low_half) * (v10 >> 32)
        q1 ^= (v01 & low_half) * (v11 >> 32)
        q2 ^= (v02 & low_half) * (v12 >> 32)
        q3 ^= (v03 & low_half) * (v13 >> 32)
        v00, v01 = (v00 + zip_even(v11, v10)) & m, (v01 + zip_odd(v11, v10)) & m
        v02, v03 = (v02 + zip_even(v13, v12)) & m, (v03 + zip_odd(v13, v12)) & m
        v10, v11 = (v10 + zip_even(v01, v00)) & m, (v11 + zip_odd(v01, v00)) & m
        v12, v13 = (v12 + zip_even(v03, v02)) & m, (v13 + zip_odd(v03, v02)) & m
    if last:
        return (v00 + v10 + p0 + q0) & m
    state[0], state[1], state[2], state[3] = v00, v01, v02, v03
    state[4], state[5], state[6], state[7] = v10, v11, v12, v13
    state[8], state[9], state[10], state[11] = p0, p1, p2, p3
    state[12], state[13], state[14], state[15] = q0, q1, q2, q3
    return 0


def absorb(state: cython.ulonglong[::1], data: cython.const[cython.uchar][::1], size: cython.Py_ssize_t) -> None:
    """Takes the first `size` bytes of `data`, a multiple of 32, into `state`."""
    assert state.shape[0] == 16 and 0 <= size <= data.shape[0] and size % 32 == 0  # noqa: PT018
    with cython.nogil:
        mix(state, data, 0, data, 0, size, False)


def finish(state: cython.ulonglong[::1], data: cython.const[cython.uchar][::1], size: cython.Py_ssize_t) -> int:
    """The hash of what `state` took in and the first `size` bytes of `data`; `state` stays."""
    assert state.shape[0] == 16 and 0 <= size <= data.shape[0]  # noqa: PT018
    value: cython.ulonglong
    with cython.nogil:
        value = mix(state, data, 0, data, 0, size, True)
    return value


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def record_hash(
    state: cython.ulonglong[::1],
    scratch: cython.uchar[::1],
    block: cython.const[cython.uchar][::1],
    record: cython.Py_ssize_t,
    subject: cython.Py_ssize_t,
    body: cython.Py_ssize_t,
    body_size: cython.Py_ssize_t,
) -> cython.ulonglong:
    """The hash of a record that lies inside `block`: sequence, time, subject, body (header and payload).

    What is in front of the body is not contiguous in the record: it is put together in `scratch`, filled up with the
    body's first bytes to whole packets, so that the body itself is read in place.
    """
    front: cython.Py_ssize_t = 16 + subject
    fill: cython.Py_ssize_t = -front % 32 if not cython.compiled else (32 - front % 32) % 32
    if fill > body_size:
        fill = body_size
    if not (
        copy(block, record + 4, 16, scratch, 0)
        and copy(block, record + 22, subject, scratch, 16)
        and copy(block, body, fill, scratch, front)
    ):
        return 0
    if fill == body_size:
        return mix(state, scratch, 0, scratch, 0, front + fill, True)
    return mix(state, scratch, (front + fill) // 32, block, body + fill, body_size - fill, True)


@cython.locals(length=cython.Py_ssize_t, subject=cython.Py_ssize_t, header=cython.Py_ssize_t)
@cython.locals(rows=cython.Py_ssize_t, subjects=cython.Py_ssize_t, headers=cython.Py_ssize_t)
@cython.locals(payloads=cython.Py_ssize_t, tombstones=cython.Py_ssize_t, fixed=cython.Py_ssize_t)
@cython.locals(wrong=cython.int, size=cython.Py_ssize_t, seq=cython.ulonglong, beyond=cython.Py_ssize_t)
def scan(
    block: cython.const[cython.uchar][::1],
    at: cython.Py_ssize_t,
    max_rows: cython.Py_ssize_t,
    max_bytes: cython.Py_ssize_t,
    cut: cython.ulonglong,
    found: cython.longlong[::1],
) -> int:
    """Measures records from `at` until the rows to emit reach `max_rows` or `max_bytes`, or the block's end.

    A row to emit has neither the erased bit nor the tombstone bit, and a sequence from 1 to `cut`. Fills `found`
    with: what is wrong (0 nothing, 1 a record is cut off, 2 its lengths contradict each other), rows, bytes of
    subjects, of headers, of payloads, tombstones, rows beyond `cut`. Returns where the next record begins, or the
    wrong one.
    """
    assert at >= 0 and found.shape[0] >= 7  # noqa: PT018
    size, wrong, rows, tombstones, beyond = block.shape[0], 0, 0, 0, 0
    subjects, headers, payloads = 0, 0, 0
    with cython.nogil:
        while at < size and rows < max_rows and subjects + headers + payloads < max_bytes:
            if size - at < 30:
                wrong = 1
                break
            length = load32(block, at)
            subject = block[at + 20] | block[at + 21] << 8
            header, fixed = 0, 30
            if length >> 31:
                length, fixed = length & 0x7FFFFFFF, 34
            if length > size - at:
                wrong = 1
                break
            if fixed == 34 and length >= 34 + subject:
                header = load32(block, at + 22 + subject)
            if header > length - fixed - subject:
                wrong = 2
                break
            seq = load64(block, at + 4)
            if seq >> 62 & 1:
                tombstones += 1
            elif seq >> 62 == 0 and seq > cut:
                beyond += 1
            elif seq >> 62 == 0 and seq != 0:
                rows += 1
                subjects += subject
                headers += header
                payloads += length - fixed - subject - header
            at += length
    found[0], found[1], found[2], found[3], found[4] = wrong, rows, subjects, headers, payloads
    found[5], found[6] = tombstones, beyond
    return at


@cython.locals(length=cython.Py_ssize_t, subject=cython.Py_ssize_t, header=cython.Py_ssize_t)
@cython.locals(row=cython.Py_ssize_t, tomb=cython.Py_ssize_t, body=cython.Py_ssize_t, payload=cython.Py_ssize_t)
@cython.locals(s=cython.Py_ssize_t, h=cython.Py_ssize_t, p=cython.Py_ssize_t, fixed=cython.Py_ssize_t)
@cython.locals(wrong=cython.int, seq=cython.ulonglong, number=cython.ulonglong)
def unpack(
    block: cython.const[cython.uchar][::1],
    at: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    cut: cython.ulonglong,
    previous: cython.ulonglong,
    state: cython.ulonglong[::1],
    scratch: cython.uchar[::1],
    seqs: cython.ulonglong[::1],
    times: cython.longlong[::1],
    subject_offsets: cython.int[::1],
    subjects: cython.uchar[::1],
    header_offsets: cython.int[::1],
    headers: cython.uchar[::1],
    payload_offsets: cython.int[::1],
    payloads: cython.uchar[::1],
    tombstones: cython.ulonglong[::1],
    found: cython.longlong[::1],
) -> int:
    """Turns the records from `at` to `end`, which `scan` has measured, into columns of just the right size.

    Checks every record's hash under `state`, tombstones' and erased ones' too, and that rows rise above `previous`.
    Sets `found[0]` (0 nothing wrong, 2 not what `scan` measured, 3 the hash, 4 the order); returns where it stopped.
    """
    assert 0 <= at <= end <= block.shape[0] and state.shape[0] == 16 and scratch.shape[0] >= 65584  # noqa: PT018
    wrong, row, tomb, s, h, p = 0, 0, 0, 0, 0, 0
    number = 0x3FFFFFFFFFFFFFFF
    with cython.nogil:
        subject_offsets[0], header_offsets[0], payload_offsets[0] = 0, 0, 0
        while at < end:
            length = load32(block, at)
            subject = block[at + 20] | block[at + 21] << 8
            header, fixed = 0, 22
            if length >> 31:
                length, fixed = length & 0x7FFFFFFF, 26
                header = load32(block, at + 22 + subject)
            body = at + fixed + subject
            payload = length - fixed - subject - header - 8
            seq = load64(block, at + 4)
            if record_hash(state, scratch, block, at, subject, body, header + payload) != load64(
                block, at + length - 8
            ):
                wrong = 3
                break
            if seq >> 62 == 0 and 0 < seq <= cut:
                if seq <= previous:
                    wrong = 4
                    break
                if not (
                    copy(block, at + 22, subject, subjects, s)
                    and copy(block, body, header, headers, h)
                    and copy(block, body + header, payload, payloads, p)
                ):
                    wrong = 2
                    break
                previous = seq
                s, h, p = s + subject, h + header, p + payload
                seqs[row], times[row] = seq, signed(load64(block, at + 12))
                row += 1
                subject_offsets[row], header_offsets[row], payload_offsets[row] = s, h, p
            elif seq >> 62 & 1:
                tombstones[tomb] = seq & number
                tomb += 1
            at += length
    found[0] = wrong
    return at


@cython.locals(row=cython.Py_ssize_t, subject=cython.Py_ssize_t, header=cython.Py_ssize_t, payload=cython.Py_ssize_t)
@cython.locals(length=cython.Py_ssize_t, body=cython.Py_ssize_t, flag=cython.ulonglong, fits=cython.bint)
def pack(
    seqs: cython.const[cython.ulonglong][::1],
    times: cython.const[cython.longlong][::1],
    subject_offsets: cython.const[cython.int][::1],
    subjects: cython.const[cython.uchar][::1],
    header_offsets: cython.const[cython.int][::1],
    headers: cython.const[cython.uchar][::1],
    payload_offsets: cython.const[cython.int][::1],
    payloads: cython.const[cython.uchar][::1],
    lo: cython.Py_ssize_t,
    hi: cython.Py_ssize_t,
    state: cython.ulonglong[::1],
    scratch: cython.uchar[::1],
    out: cython.uchar[::1],
    at: cython.Py_ssize_t,
) -> int:
    """Writes rows `lo` to `hi` as records into `out` from `at`; returns where the last one ends.

    Returns -1 - row at the first row that does not fit or contradicts its offsets.
    """
    assert 0 <= lo <= hi <= seqs.shape[0] and state.shape[0] == 16 and scratch.shape[0] >= 65584  # noqa: PT018
    with cython.nogil:
        for row in range(lo, hi):
            subject = subject_offsets[row + 1] - subject_offsets[row]
            header = header_offsets[row + 1] - header_offsets[row]
            payload = payload_offsets[row + 1] - payload_offsets[row]
            body = at + 22 + subject + (4 if header else 0)
            length = body - at + header + payload + 8
            fits = subject <= 65535 and length <= out.shape[0] - at
            if not (
                fits
                and copy(subjects, subject_offsets[row], subject, out, at + 22)
                and copy(headers, header_offsets[row], header, out, body)
                and copy(payloads, payload_offsets[row], payload, out, body + header)
            ):
                at = -1 - row
                break
            flag = 1 if header else 0
            store(out, at, length | flag << 31, 4)
            store(out, at + 4, seqs[row], 8)
            store(out, at + 12, times[row], 8)
            store(out, at + 20, subject, 2)
            if header:
                store(out, at + 22 + subject, header, 4)
            store(out, at + length - 8, record_hash(state, scratch, out, at, subject, body, header + payload), 8)
            at += length
    return at


@cython.locals(at=cython.Py_ssize_t)
def first_jump(
    seqs: cython.const[cython.ulonglong][::1],
    lo: cython.Py_ssize_t,
    hi: cython.Py_ssize_t,
    widest: cython.ulonglong,
) -> int:
    """The first row after `lo` whose sequence is more than `widest` above the one before; `hi` where there is none."""
    assert 0 <= lo < hi <= seqs.shape[0]
    at = lo + 1
    with cython.nogil:
        while at < hi and seqs[at] - seqs[at - 1] <= widest:
            at += 1
    return at
