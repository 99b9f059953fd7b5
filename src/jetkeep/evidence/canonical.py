"""Canonical JSON: the same facts are the same bytes, for who signs and for who checks (RFC 8785). Pure."""

from __future__ import annotations

import json
import math
from typing import Any

from jetkeep.errors import BadDataError
from jetkeep.model import JsonDict

#: What a reader that keeps numbers as doubles gets right (I-JSON); larger ones stand as text.
LARGEST = 2**53 - 1
DECIMALS = 3


def encode(document: JsonDict) -> bytes:
    """The bytes of a document: keys sorted, no white space, UTF-8, only what must be escaped is.

    Raises:
        ValueError: a key is not ASCII, or a number is none.
    """
    return write(plain(document))


def plain(document: JsonDict) -> JsonDict:
    """The document with values of which `write` makes RFC 8785, without any of its rules for numbers.

    Fractions have three decimals at most, whole numbers no point, integers beyond ±(2^53 - 1) are the text of their digits,
    and keys are ASCII. A lone surrogate, which no UTF-8 has, becomes a question mark.

    Raises:
        ValueError: a key is not ASCII.
    """
    made: JsonDict = _plain(document)
    return made


def write(document: JsonDict) -> bytes:
    """The bytes of a document that `plain` has made.

    Raises:
        ValueError: a number is none.
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def decode(data: bytes, key: str) -> JsonDict:
    """Read a document.

    Raises:
        BadDataError: these are not the bytes that `encode` makes of it.
    """
    try:
        document = json.loads(data)
        if isinstance(document, dict) and encode(document) == data:
            return document
        why = "its JSON is not canonical"
    except (ValueError, RecursionError) as wrong:
        why = f"it is no JSON: {wrong}"
    raise BadDataError(
        f"{key} is damaged: {why}",
        code="data.decode",
        means="what this drill found cannot be read; backups are not affected",
        hint="compare with a copy of it, if there is one, and drill again",
    )


def _plain(value: Any) -> Any:
    match value:
        case dict():
            if not all(isinstance(key, str) and key.isascii() for key in value):
                raise ValueError("a key is not ASCII")
            return {key: _plain(one) for key, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case str():
            return value.encode("utf-8", "replace").decode()
        case bool() | None:
            return value
        case int():
            return value if -LARGEST <= value <= LARGEST else str(value)
        case float():
            rounded = round(value, DECIMALS) if math.isfinite(value) else value
            return int(rounded) if rounded.is_integer() else rounded
        case _:
            raise TypeError(f"{type(value).__name__} is no JSON")
