# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels of the archive form and of segments: S2 blocks, archive entries to columns and back, the fingerprint.

Ordinary typed Python: compiled by Cython where a C compiler is there, interpreted elsewhere, same results.
Indexing is unchecked when compiled, so every length from outside is compared with what is left of its buffer
before it is used. Nothing here raises on hostile input: functions return a status, and their callers word the error.
"""

from __future__ import annotations

try:
    import cython
except ModuleNotFoundError:
    from jetkeep.codecs.kernels import _uncompiled as cython

if cython.compiled:
    from cython.cimports.libc.string import memcpy

COMPILED = cython.compiled
#: SHA-256 of this file with these 64 digits as zeros: tests find a binary that was compiled from another source.
SOURCE_DIGEST = "3da96eb042101a195629dee38a5420ae272b51921b60d4363fc75171f110b6f3"

# What `archive_scan` and `archive_unpack` stopped at.
CUT, FULL, SENTINEL, MALFORMED, TOO_LARGE, OUT_OF_ORDER, NO_SUBJECT = range(7)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def copy(
    target: cython.p_uchar,
    to: cython.Py_ssize_t,
    source: cython.pointer(cython.const[cython.uchar]),
    at: cython.Py_ssize_t,
    size: cython.Py_ssize_t,
) -> cython.void:
    """Copies `size` bytes between buffers that do not overlap."""
    if cython.compiled:
        memcpy(target + to, source + at, size)
    else:
        target[to : to + size] = source[at : at + size]


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def repeat(
    target: cython.p_uchar, to: cython.Py_ssize_t, back: cython.Py_ssize_t, size: cython.Py_ssize_t
) -> cython.void:
    """Copies `size` bytes from `back` bytes before `to`, as if one by one: the two may overlap."""
    if not cython.compiled:
        run = target[to - back : to - back + min(size, back)]
        target[to : to + size] = run if size <= back else (run * (size // back + 1))[:size]
        return
    i: cython.Py_ssize_t = 0
    if back >= 16 and size >= 16:
        while i + 16 <= size:
            memcpy(target + to + i, target + to + i - back, 16)
            i += 16
        # The last 16 bytes again, some of them with what they are already, instead of up to 15 one by one.
        memcpy(target + to + size - 16, target + to + size - 16 - back, 16)
        return
    while i < size:
        target[to + i] = target[to + i - back]
        i += 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.locals(tag=cython.uint, kind=cython.uint, offset=cython.Py_ssize_t, length=cython.Py_ssize_t)
@cython.locals(wide=cython.Py_ssize_t, top=cython.Py_ssize_t, to=cython.Py_ssize_t)
def s2_ops(
    block: cython.pointer(cython.const[cython.uchar]),
    at: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    out: cython.p_uchar,
    size: cython.Py_ssize_t,
) -> cython.bint:
    """Runs the operations from `at` to `end`; whether they gave exactly `size` bytes of `out`."""
    offset, to = 0, 0
    while at < end:
        tag = block[at]
        kind = tag & 3
        if kind == 0:
            length = (tag >> 2) + 1
            at += 1
            if length > 60:
                wide = length - 60
                if wide > end - at:
                    return False
                length = 1 + block[at]
                if wide > 1:
                    length += block[at + 1] << 8
                if wide > 2:
                    length += block[at + 2] << 16
                if wide > 3:
                    top = block[at + 3]
                    length += top << 24
                at += wide
            if length > end - at or length > size - to:
                return False
            if cython.compiled and length <= 16 and end - at >= 16 and size - to >= 16:
                memcpy(out + to, block + at, 16)
            else:
                copy(out, to, block, at, length)
            at += length
            to += length
            continue
        if kind == 1:
            if end - at < 2:
                return False
            wide = (tag & 0xE0) << 3 | block[at + 1]
            length = (tag >> 2 & 7) + 4
            at += 2
            if wide:
                offset = wide
            elif length > 8:
                wide = length - 8
                if wide > end - at:
                    return False
                length = 8 + block[at]
                if wide == 2:
                    length = 260 + (block[at] | block[at + 1] << 8)
                elif wide == 3:
                    length = 65540 + (block[at] | block[at + 1] << 8 | block[at + 2] << 16)
                at += wide
        elif kind == 2:
            if end - at < 3:
                return False
            length = (tag >> 2) + 1
            offset = block[at + 1] | block[at + 2] << 8
            at += 3
        else:
            if end - at < 5:
                return False
            length = (tag >> 2) + 1
            offset = block[at + 1] | block[at + 2] << 8 | block[at + 3] << 16
            top = block[at + 4]
            offset |= top << 24
            at += 5
        if offset <= 0 or offset > to or length > size - to:
            return False
        if cython.compiled and length <= 16 and offset >= 16 and size - to >= 16:
            memcpy(out + to, out + to - offset, 16)
        else:
            repeat(out, to, offset, length)
        to += length
    return to == size


def s2_decode(
    block: cython.const[cython.uchar][::1],
    at: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    size: cython.Py_ssize_t,
) -> bytes | None:
    """The `size` bytes that the operations of an S2 block from `at` to `end` make; None if they do not.

    The block's leading length is the caller's: he has compared it with what he is willing to hold.
    """
    assert 0 <= at <= end <= len(block) and size >= 0  # noqa: PT018
    fine: cython.bint
    if not cython.compiled:
        made = bytearray(size)
        return bytes(made) if s2_ops(bytes(block[:end]), at, end, made, size) else None
    # Written before anybody else can see it: the checksum's library takes nothing but bytes, and a copy costs.
    result: bytes = bytes(size)
    out: cython.p_uchar = result
    with cython.nogil:
        fine = s2_ops(cython.address(block[0]), at, end, out, size)
    return result if fine else None


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.locals(value=cython.ulonglong, byte=cython.ulonglong, shift=cython.uint, i=cython.int)
def entry_head(
    data: cython.pointer(cython.const[cython.uchar]),
    at: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    head: cython.p_ulonglong,
) -> cython.Py_ssize_t:
    """Reads an entry's five integers into `head`; where they end, -1 if they are cut off, -2 if one is too long."""
    for i in range(5):
        value, shift = 0, 0
        while True:
            if at >= end:
                return -1
            byte = data[at]
            at += 1
            if shift == 63 and byte > 1:
                return -2
            value |= (byte & 127) << shift
            if byte < 128:
                break
            shift += 7
        head[i] = value
    return at


@cython.locals(end=cython.Py_ssize_t)
def archive_head(data: cython.const[cython.uchar][::1], at: cython.Py_ssize_t, head: cython.ulonglong[::1]) -> int:
    """Reads one entry's integers into `head`; where they end, -1 if they are cut off, -2 if one is too long."""
    assert at >= 0 and len(head) >= 5  # noqa: PT018
    source: cython.pointer(cython.const[cython.uchar]) = cython.address(data[0]) if cython.compiled else data
    fields: cython.p_ulonglong = cython.address(head[0]) if cython.compiled else head
    end = len(data)
    return entry_head(source, at, end, fields)


@cython.locals(end=cython.Py_ssize_t, body=cython.Py_ssize_t, rows=cython.Py_ssize_t, status=cython.int)
@cython.locals(subjects=cython.ulonglong, headers=cython.ulonglong, payloads=cython.ulonglong, size=cython.ulonglong)
@cython.locals(bound=cython.ulonglong, total=cython.ulonglong, left=cython.ulonglong)
def archive_scan(
    data: cython.const[cython.uchar][::1],
    at: cython.Py_ssize_t,
    previous: cython.ulonglong,
    max_rows: cython.Py_ssize_t,
    max_bytes: cython.Py_ssize_t,
    max_subject: cython.ulonglong,
    max_body: cython.ulonglong,
    head: cython.ulonglong[::1],
    found: cython.ulonglong[::1],
) -> int:
    """Measures message entries from `at` on, as many as make one batch; where the first of the others begins.

    Fills `found` with a status (`CUT`: the data ends inside an entry; `FULL`: rows or bytes of the batch; `SENTINEL`: the
    end mark was taken; the others: what is wrong with the entry there), and rows, bytes of subjects, of headers, of
    payloads, and the last sequence. A first entry larger than `max_bytes` is taken alone.
    """
    assert at >= 0 and len(head) >= 5 and len(found) >= 6  # noqa: PT018
    source: cython.pointer(cython.const[cython.uchar]) = cython.address(data[0]) if cython.compiled else data
    fields: cython.p_ulonglong = cython.address(head[0]) if cython.compiled else head
    end, rows, subjects, headers, payloads, status, bound = len(data), 0, 0, 0, 0, 1, max_bytes
    with cython.nogil:
        while rows < max_rows:
            body = entry_head(source, at, end, fields)
            if body < 0:
                status = 0 if body == -1 else 3
                break
            if head[0] == 0:
                status = 6
                if head[1] == 0 and head[2] == 0 and head[3] == 0 and head[4] == 0:
                    at, status = body, 2
                break
            if head[0] > max_subject or head[3] > max_body or head[4] > max_body - head[3]:
                status = 4
                break
            if head[2] <= previous:
                status = 5
                break
            size, left = head[0] + head[3] + head[4], end - body
            total = subjects + headers + payloads
            if rows and total + size > bound:
                break
            if size > left:
                status = 0
                break
            at = body + size
            previous = head[2]
            rows += 1
            subjects += head[0]
            headers += head[3]
            payloads += head[4]
    found[0], found[1], found[2], found[3], found[4], found[5] = status, rows, subjects, headers, payloads, previous
    return at


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def unzigzag(value: cython.ulonglong) -> cython.longlong:
    if not cython.compiled:
        return value >> 1 ^ -(value & 1)
    return cython.cast(cython.longlong, value >> 1 ^ (0 - (value & 1)))


@cython.locals(
    i=cython.Py_ssize_t, s=cython.Py_ssize_t, h=cython.Py_ssize_t, p=cython.Py_ssize_t, end=cython.Py_ssize_t
)
@cython.locals(subject=cython.Py_ssize_t, header=cython.Py_ssize_t, payload=cython.Py_ssize_t)
def archive_unpack(
    data: cython.const[cython.uchar][::1],
    at: cython.Py_ssize_t,
    head: cython.ulonglong[::1],
    seq: cython.ulonglong[::1],
    ts: cython.longlong[::1],
    subject_offsets: cython.int[::1],
    subjects: cython.uchar[::1],
    header_offsets: cython.int[::1],
    headers: cython.uchar[::1],
    payload_offsets: cython.int[::1],
    payloads: cython.uchar[::1],
) -> int:
    """Turns the entries from `at` on, which `archive_scan` has measured, into columns of just the right size.

    Returns how many rows it filled: fewer than `seq` has if the columns are not of the size that was measured.
    """
    rows: cython.Py_ssize_t = len(seq)
    assert at >= 0 and len(head) >= 5 and len(ts) == rows  # noqa: PT018
    assert len(subject_offsets) == len(header_offsets) == len(payload_offsets) == rows + 1
    source: cython.pointer(cython.const[cython.uchar]) = cython.address(data[0]) if cython.compiled else data
    fields: cython.p_ulonglong = cython.address(head[0]) if cython.compiled else head
    to_subject: cython.p_uchar = cython.address(subjects[0]) if cython.compiled else subjects
    to_header: cython.p_uchar = cython.address(headers[0]) if cython.compiled else headers
    to_payload: cython.p_uchar = cython.address(payloads[0]) if cython.compiled else payloads
    end, i, s, h, p = len(data), 0, 0, 0, 0
    with cython.nogil:
        subject_offsets[0], header_offsets[0], payload_offsets[0] = 0, 0, 0
        while i < rows:
            at = entry_head(source, at, end, fields)
            if at < 0:
                break
            subject, header, payload = head[0], head[3], head[4]
            if subject < 0 or subject > end - at or header < 0 or header > end - at - subject:
                break
            if payload < 0 or payload > end - at - subject - header:
                break
            if subject > len(subjects) - s or header > len(headers) - h or payload > len(payloads) - p:
                break
            seq[i], ts[i] = head[2], unzigzag(head[1])
            copy(to_subject, s, source, at, subject)
            copy(to_header, h, source, at + subject, header)
            copy(to_payload, p, source, at + subject + header, payload)
            at += subject + header + payload
            s, h, p, i = s + subject, h + header, p + payload, i + 1
            subject_offsets[i], header_offsets[i], payload_offsets[i] = s, h, p
    return i


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def put_uvarint(out: cython.p_uchar, to: cython.Py_ssize_t, value: cython.ulonglong) -> cython.Py_ssize_t:
    while value > 127:
        out[to] = value & 127 | 128
        value >>= 7
        to += 1
    out[to] = value
    return to + 1


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def zigzag(value: cython.longlong) -> cython.ulonglong:
    if not cython.compiled:
        return (value << 1 ^ value >> 63) & 0xFFFFFFFFFFFFFFFF
    return cython.cast(cython.ulonglong, value) << 1 ^ cython.cast(cython.ulonglong, value >> 63)


@cython.locals(i=cython.Py_ssize_t, to=cython.Py_ssize_t, rows=cython.Py_ssize_t, s=cython.Py_ssize_t)
@cython.locals(h=cython.Py_ssize_t, p=cython.Py_ssize_t, room=cython.Py_ssize_t)
@cython.locals(subject=cython.Py_ssize_t, header=cython.Py_ssize_t, payload=cython.Py_ssize_t)
def archive_pack(
    seq: cython.const[cython.ulonglong][::1],
    ts: cython.const[cython.longlong][::1],
    subject_offsets: cython.const[cython.int][::1],
    subjects: cython.const[cython.uchar][::1],
    header_offsets: cython.const[cython.int][::1],
    headers: cython.const[cython.uchar][::1],
    payload_offsets: cython.const[cython.int][::1],
    payloads: cython.const[cython.uchar][::1],
    out: cython.uchar[::1],
) -> int:
    """Writes the rows as archive entries; how many bytes of `out` they took, -1 if it or a column is too short.

    An entry takes at most 50 bytes more than its subject, header and payload.
    """
    rows = len(seq)
    assert len(ts) == rows
    assert len(subject_offsets) == len(header_offsets) == len(payload_offsets) == rows + 1
    target: cython.p_uchar = cython.address(out[0]) if cython.compiled else out
    source: cython.pointer(cython.const[cython.uchar])
    i, to, room = 0, 0, len(out)
    with cython.nogil:
        while i < rows:
            s, h, p = subject_offsets[i], header_offsets[i], payload_offsets[i]
            subject, header, payload = subject_offsets[i + 1] - s, header_offsets[i + 1] - h, payload_offsets[i + 1] - p
            if s < 0 or subject < 0 or subject > len(subjects) - s or h < 0 or header < 0:
                break
            if header > len(headers) - h or p < 0 or payload < 0 or payload > len(payloads) - p:
                break
            if subject + header + payload > room - to - 50:
                break
            to = put_uvarint(target, to, subject)
            to = put_uvarint(target, to, zigzag(ts[i]))
            to = put_uvarint(target, to, seq[i])
            to = put_uvarint(target, to, header)
            to = put_uvarint(target, to, payload)
            source = cython.address(subjects[0]) if cython.compiled else subjects
            copy(target, to, source, s, subject)
            source = cython.address(headers[0]) if cython.compiled else headers
            copy(target, to + subject, source, h, header)
            source = cython.address(payloads[0]) if cython.compiled else payloads
            copy(target, to + subject + header, source, p, payload)
            to += subject + header + payload
            i += 1
    return to if i == rows else -1
