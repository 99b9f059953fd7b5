"""Keys, tokens and passwords where they do not belong. No value leaves this module: only its kind and its key."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from jetkeep.audit.document import Document, Node
from jetkeep.audit.findings import Finding, Place, Rule
from jetkeep.audit.rules import RULES

#: What stands for a value that is still to come.
_PLACEHOLDER = re.compile(
    r"REPLACE[_-]?(ME|THIS|WITH)|CHANGE[_-]?(ME|THIS)|FILL[_-]?(ME|IN)|PLACEHOLDER|\bYOUR[_-][A-Z]|\bTODO\b|\bxxx+\b"
    r"|(?:s3|gs|az|s3a)://(?:BUCKET|CONTAINER)\b|arn:aws:[a-z0-9]*:[^:]*:(?:ACCOUNT[A-Z_]*|0{12})?:[^\s\"']*\bBUCKET\b"
    r"|arn:aws:iam::(?:ACCOUNT[A-Z_]*|0{12}):|@PROJECT[A-Z_-]*\.iam|/subscriptions/SUBSCRIPTION\b"
    r"|(?:^|[:/=\"'@\s])<[A-Za-z][\w -]{1,40}>(?:$|[:/.\"'@\s])",
    re.IGNORECASE,
)
#: Filled in when it runs, not by a person: `${NAME}`, `$(NAME)`, `env://NAME`, a template's braces.
_REFERENCE = re.compile(r"^\$\{?\w|^\$\(\w|^(env|file|op|nsc|vault)://|\{\{.*\}\}|^ENC\[|^ref\+")
_SECRET_KEY = re.compile(
    r"(passw(or)?d|passphrase|secret|token|credential|seed|api[_-]?key|(access|private|account|shared|sas|auth|encryption|storage)[_-]?key)s?$",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(
    r"""^\s*(?:export\s+)?["']?(?P<key>[\w.-]+)["']?\s*[:=]\s*["']?(?P<value>[^\s"',;#}]+)""", re.MULTILINE
)
#: An address alone: nothing that would have to be secret.
_OPEN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[A-Za-z0-9.:_/-]+")
_WORD = re.compile(r"[A-Za-z0-9+_=-]{32,}")
#: Certificates, and the JWTs that were judged already.
_PUBLIC_BLOCK = re.compile(
    r"-----BEGIN (CERTIFICATE|PUBLIC KEY)[^-]*-----.*?-----END|\beyJ[\w-]+\.eyJ[\w-]+\.[\w-]+", re.DOTALL
)
_PUBLIC_WORD = re.compile(r"^(age1[a-z0-9]+|[UANOCX][A-Z2-7]{55}|(sha\d+[:=-])?[0-9a-f]{32,128}|sha\d+-.*)$")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ENTROPY_BITS = 4.3
#: Each is compared with the others; nobody reads more.
MAX_HITS = 100


class Hit(NamedTuple):
    """Something secret in a text: which rule, what kind, and where the text has it."""

    rule: Rule
    kind: str
    at: int


def _nkey(text: str) -> bool:
    """Whether a seed's checksum is right: words of capitals are not rare."""
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except binascii.Error:
        return False
    return binascii.crc_hqx(raw[:-2], 0) == int.from_bytes(raw[-2:], "little")


def _jwt(text: str) -> bool:
    """Whether whoever holds it is somebody: a NATS account's or operator's JWT is public."""
    try:
        part = text.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, binascii.Error):
        return False
    nats = claims.get("nats") if isinstance(claims, dict) else None
    return not (isinstance(nats, dict) and nats.get("type") in ("account", "operator"))


def _real(text: str) -> bool:
    return not (_REFERENCE.search(text) or _PLACEHOLDER.search(text) or set(text) <= set("*.x-"))


def _anything(text: str) -> bool:
    return True


#: Rule, kind, expression (its last group is what `when` judges).
_FORMS: tuple[tuple[str, str, re.Pattern[str], Callable[[str], bool]], ...] = tuple(
    (rule, kind, re.compile(form), when)
    for rule, kind, form, when in (
        ("JK001", "an AWS access key", r"\b((?:AKIA|ASIA)[A-Z0-9]{16})\b", _anything),
        ("JK001", "an AWS secret key", r"(?i)aws_?secret_?access_?key[\"']?\s*[:=]\s*[\"']?([A-Za-z0-9/+]{40})\b", _anything),
        ("JK002", "a GCP service account's key", r"\"private_key\"\s*:\s*\"(-----BEGIN)", _anything),
        ("JK002", "a GCP key", r"\b(AIza[A-Za-z0-9_-]{35}|GOOG[A-Z0-9]{20,60}|ya29\.[A-Za-z0-9_-]{20,})", _anything),
        ("JK003", "an Azure account's key", r"(?:^|[=\"'\s])([A-Za-z0-9+/]{86}==)", _anything),
        ("JK003", "an Azure shared access signature", r"[?&]sig=([A-Za-z0-9%/+]{40,}=?)", _anything),
        ("JK004", "an nkey seed", r"\b(S[UAONCX][A-Z2-7]{56})\b", _nkey),
        ("JK004", "a NATS user's credentials", r"-----BEGIN NATS USER JWT-----\s+(eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+)", _anything),
        ("JK004", "a JWT", r"\b(eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{16,})", _jwt),
        ("JK005", "an age identity", r"(?i)(AGE-SECRET-KEY-(?:PQ-)?1[A-Z0-9]{20,})", _anything),
        ("JK006", "a private key", r"-----BEGIN ((?:[A-Z]+ )*PRIVATE KEY)-----", _anything),
        ("JK007", "a password in a URL", r"\b[a-z][a-z0-9+.-]*://[^/\s:@\"']*:([^/\s@\"']+)@", _real),
        ("JK007", "a token in a URL", r"\b(?:nats|tls)://([^/\s:@\"',]{8,})@", _real),
        ("JK008", "a token", r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{40,}|glpat-[\w-]{20}|xox[abprs]-[\w-]{10,}|sk_live_\w{20,})", _anything),
        ("JK008", "a webhook with its token", r"https://(hooks\.slack\.com/services/T\w+/B\w+/\w{8,}|discord(?:app)?\.com/api/webhooks/\d+/[\w-]{20,})", _real),
    )
)  # fmt: skip


def hits(text: str) -> list[Hit]:
    """What is secret in a text by its own form, each place once; of a text that is full of it the first `MAX_HITS`."""
    found: dict[int, Hit] = {}
    matches = ((rule, kind, match, when) for rule, kind, form, when in _FORMS for match in form.finditer(text))
    for rule, kind, match, when in matches:
        begin, end = match.span(1)
        if when(match[1]) and not any(begin < one.at + 8 and one.at < end for one in found.values()):
            found[begin] = Hit(RULES[rule], kind, begin)
        if len(found) >= MAX_HITS:
            break
    if any(one.rule.id == "JK002" for one in found.values()):  # the PEM within is the same key
        return [one for one in found.values() if one.rule.id != "JK006"]
    return list(found.values())


def redacted(text: str) -> str:
    """A message of somebody else's, without what is secret in it."""
    for _, _, form, _ in _FORMS:
        text = form.sub("[redacted]", text)
    return text


def random_word(text: str) -> int:
    """Where a word stands that looks like a key: long, mixed, without a pattern; -1 when there is none."""
    bare = _PUBLIC_BLOCK.sub(lambda match: " " * len(match[0]), text)
    for match in _WORD.finditer(bare):
        word = match[0]
        mixed = all(any(test(one) for one in word) for test in (str.islower, str.isupper, str.isdigit))
        if mixed and not _PUBLIC_WORD.match(word) and _bits(word) >= _ENTROPY_BITS and _real(word):
            return match.start()
    return -1


def _bits(word: str) -> float:
    counts = [word.count(one) / len(word) for one in set(word)]
    return -sum(one * math.log2(one) for one in counts)


def credentials(document: Document) -> Iterator[Finding]:
    """Every secret in a document that is not where secrets belong."""
    for text, node in ((document.toml, document.node), (document.conf, document.node)):
        if text:
            yield from _in_text(document, Node(text, 1, 1), (), node)
    if document.kind == "Secret" and document.live:
        return
    if document.kind == "CustomResourceDefinition":
        return
    secret = document.kind == "Secret"
    for path, node in document.node.scalars():
        if not node.text or path[:2] == ("metadata", "managedFields"):
            continue
        if secret and path[:1] == ("data",):
            decoded = _decoded(node.text)
            found = list(_in_text(document, Node(decoded, node.line), path, node))
        else:
            found = list(_in_text(document, node, path, node))
        yield from found
        if secret and path[:1] in (("data",), ("stringData",)) and not found:
            yield from _stated(document, path, node)
    yield from _literals(document)


def _in_text(document: Document, text: Node, path: tuple[str, ...], place: Node) -> Iterator[Finding]:
    found = hits(text.text)
    for hit in found:
        line = text.line_of(text.text.count("\n", 0, hit.at))
        yield _finding(document, hit.rule, line or place.line, f"{hit.kind}{_under(path)}")
    if found or document.kind == "Secret":
        return
    named = _assigned(text.text) if "\n" in text.text else []
    for at, key in named:
        line = text.line_of(text.text.count("\n", 0, at))
        yield _finding(document, RULES["JK009"], line or place.line, f"a value for {_safe(key)}{_under(path)}")
    if not named and (at := random_word(text.text)) >= 0 and not _harmless(document, path):
        line = text.line_of(text.text.count("\n", 0, at))
        yield _finding(document, RULES["JK008"], line or place.line, f"what looks like a random key{_under(path)}")


def _harmless(document: Document, path: tuple[str, ...]) -> bool:
    """Random by nature, and public."""
    last = path[-1] if path else ""
    return last in ("uid", "resourceVersion", "image", "imageID", "caBundle", "checksum", "digest") or (
        "annotations" in path or document.kind == "List"
    )


def _assigned(text: str) -> list[tuple[int, str]]:
    """Places where a text gives a value to something that is called a secret."""
    return [
        (match.start("key"), match["key"])
        for match in _ASSIGNED.finditer(text)
        if _SECRET_KEY.search(match["key"]) and len(match["value"]) > 3 and _real(match["value"]) and not _path(match["value"])
    ]  # fmt: skip


def _path(value: str) -> bool:
    return value.startswith(("/", "./", "~/", "{", "[", "<", "$", "true", "false", "null"))


def _stated(document: Document, path: tuple[str, ...], node: Node) -> Iterator[Finding]:
    """A Secret's value that has no form of its own."""
    text = _decoded(node.text) if path[0] == "data" else node.text
    open_url = _OPEN_URL.fullmatch(text.strip()) and not _SECRET_KEY.search(path[-1])
    if not document.live and text.strip() and _real(text) and not open_url:
        yield _finding(document, RULES["JK010"], node.line, f"a value{_under(path)}")


def _literals(document: Document) -> Iterator[Finding]:
    """Variables and ConfigMap keys that are called secrets and have a value of their own."""
    if document.kind == "ConfigMap":
        for key, node in document.node.get("data").items.items():
            if _SECRET_KEY.search(key) and node.text.strip() and _real(node.text) and not hits(node.text):
                yield _finding(document, RULES["JK009"], node.line, f"a value under {_safe(key)}")
    for entry in _variables(document.node):
        name, value = entry.get("name").text, entry.get("value")
        if (
            _SECRET_KEY.search(name)
            and value.text
            and _real(value.text)
            and not hits(value.text)
            and not _path(value.text)
        ):
            yield _finding(document, RULES["JK009"], value.line, f"the variable {_safe(name)} has a literal value")


def _variables(node: Node) -> Iterator[Node]:
    for key, one in node.items.items():
        if key == "env":
            yield from one.all
        else:
            yield from _variables(one)
    for one in node.all:
        yield from _variables(one)


def placeholders(document: Document) -> Iterator[Finding]:
    """What somebody was meant to fill in."""
    if document.kind in ("CustomResourceDefinition", "PrometheusRule"):
        return
    texts = [((), Node(text, 1, 1)) for text in (document.toml, document.conf) if text]
    for path, node in (*texts, *document.node.scalars()):
        text = _decoded(node.text) if document.kind == "Secret" and path[:1] == ("data",) else node.text
        for match in _PLACEHOLDER.finditer(text):
            before = text[: match.start() + 1]
            if before.rpartition("\n")[2].lstrip().startswith(("#", "//")):
                continue  # a comment in a configuration
            line = node.line_of(before.count("\n")) or node.line
            yield _finding(document, RULES["JK011"], line, f"a placeholder{_under(path)}")
            break


def _decoded(text: str) -> str:
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode("utf-8", errors="replace")
    except (ValueError, binascii.Error):
        return text


def _under(path: tuple[str, ...]) -> str:
    return f" under {_safe(path[-1])}" if path else ""


def _safe(key: str) -> str:
    """A key as it may be printed: it may itself be what is secret."""
    return key if _SAFE_NAME.fullmatch(key) and not hits(key) and random_word(key) < 0 else "a key"


def _finding(document: Document, rule: Rule, line: int, what: str) -> Finding:
    return Finding(rule, Place(document.file, line, document.title), what, rule.severity)
