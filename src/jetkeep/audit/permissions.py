"""Rules about who may do what: in Kubernetes, in the clouds, in NATS."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from jetkeep.audit.document import Document, Node
from jetkeep.audit.findings import Finding, Place
from jetkeep.audit.reading import read_text
from jetkeep.audit.rules import RULES
from jetkeep.audit.workload import Workload
from jetkeep.errors import JetkeepError

#: What reaches further than the namespace's own objects.
_STRONG = {"escalate", "bind", "impersonate", "*"}
_READ_SECRETS = {"get", "list", "watch", "*"}
_RUN = {"create", "update", "patch", "*"}
_AWS_NEVER = re.compile(
    r"^(\*|[a-z0-9]+:\*|s3:\*|s3:(delete\*|put\*|delete(bucket|objectversion).*|put(bucket|account|lifecycle|encryption|replication).*|bypass.*)|iam:.*|kms:(\*|schedulekeydeletion|disablekey)|sts:assumerole\*?)$",
    re.IGNORECASE,
)
_GCP_NEVER = re.compile(r"\*|setIamPolicy|storage\.buckets\.(delete|update|create)|\.(overrideUnlockedRetention)$")
_GCP_ROLES = re.compile(
    r"roles/(owner|editor|storage\.(admin|objectAdmin|legacyBucketOwner|hmacKeyAdmin)|iam\.serviceAccountKeyAdmin)"
)
_AZURE_NEVER = re.compile(
    r"^(\*|.*/\*|.*/blobs/(write|deleteBlobVersion/action|permanentDelete/action|modifyPermissions/action)|.*/(listkeys|regeneratekey)/action)$",
    re.IGNORECASE,
)
_NATS_EVERYTHING = {">", "*", "$JS.>", "$JS.API.>", "$JS.*.API.>", "$JS.API.STREAM.>", "*.>", "$SYS.>"}
_CONF_EVERYTHING = re.compile(
    r"\b(?P<side>publish|pub|subscribe|sub|allow)\b[\s:=]*(?P<list>\[[^\]]*\]|\"[^\"]*\"|\{\s*allow[\s:=]*(?:\[[^\]]*\]|\"[^\"]*\"))"
)
_WORD = re.compile(r"\"([^\"]+)\"|([^\s\"\[\],{}]+)")
_COMMENT = re.compile(r"^\s*(#|//).*$", re.MULTILINE)


def permissions(documents: Iterable[Document], workloads: Iterable[Workload]) -> Iterator[Finding]:
    """Everything that is wider than what jetkeep needs."""
    every = list(documents)
    accounts = {one.spec.get("serviceAccountName").text or "default" for one in workloads} | {"jetkeep"}
    bound = [one for one in every if one.kind.endswith("RoleBinding") and _is_ours(one, accounts)]
    ours = {(one.node.get("roleRef", "kind").text, one.node.get("roleRef", "name").text) for one in bound}
    for one in bound:
        if one.node.get("roleRef", "name").text in ("cluster-admin", "admin", "edit"):
            what = f"{one.node.get('roleRef', 'name').text} is bound to jetkeep's service account"
            yield _finding(one, "JK013", one.node.get("roleRef"), what)
    for one in every:
        if one.kind in ("Role", "ClusterRole") and ((one.kind, one.name) in ours or "jetkeep" in one.name):
            yield from _rules(one)
        yield from _cloud(one)
        for text, node in _configurations(one):
            yield from _nats(one, text, node)


def _is_ours(binding: Document, accounts: set[str]) -> bool:
    return any(
        subject.get("kind").text == "ServiceAccount" and subject.get("name").text in accounts
        for subject in binding.node.get("subjects").all
    )


def _rules(role: Document) -> Iterator[Finding]:
    for rule in role.node.get("rules").all:
        verbs, kinds = set(rule.get("verbs").texts), set(rule.get("resources").texts)
        if "*" in kinds or verbs & _STRONG:
            yield _finding(role, "JK013", rule, f"verbs {', '.join(sorted(verbs))} on {', '.join(sorted(kinds))}")
        elif "secrets" in kinds and verbs & _READ_SECRETS and not rule.get("resourceNames").all:
            yield _finding(role, "JK013", rule, "it reads every Secret of its scope")
        elif kinds & {"pods/exec", "pods/attach", "serviceaccounts/token"} and verbs & {"get", *_RUN}:
            yield _finding(role, "JK013", rule, f"it enters others: {', '.join(sorted(kinds))}")


def _cloud(document: Document) -> Iterator[Finding]:
    """A policy document of AWS, a role of GCP or Azure, as a file or as a text inside of another object."""
    yield from _policy(document, document.node, 0)
    for _, node in document.node.scalars():
        if '"Statement"' in node.text or '"DataActions"' in node.text:
            try:
                inner = read_text("inner.json", node.text)
            except JetkeepError:
                continue
            for one in inner.documents:
                yield from _policy(document, one.node, node.line)


def _policy(document: Document, node: Node, line: int) -> Iterator[Finding]:
    statements = node.get("Statement")
    for statement in statements.all or ([statements] if statements.items else []):
        if statement.get("Effect").text == "Allow":
            yield from _aws(document, statement, line)
    for key in ("Actions", "DataActions"):
        for one in node.get(key).all:
            if _AZURE_NEVER.match(one.text):
                yield _finding(document, "JK014", one, f"{key} holds {one.text}", line)
    for one in node.get("includedPermissions").all:
        if _GCP_NEVER.search(one.text):
            yield _finding(document, "JK014", one, f"includedPermissions holds {one.text}", line)
    role = node.get("spec", "role") or node.get("role")
    if _GCP_ROLES.match(role.text):
        yield _finding(document, "JK014", role, f"the role {role.text}", line)


def _aws(document: Document, statement: Node, line: int) -> Iterator[Finding]:
    actions = statement.get("Action")
    for one in actions.texts:
        if _AWS_NEVER.match(one):
            yield _finding(document, "JK014", actions, f"the action {one}", line)
    named = {one.lower() for one in actions.texts}
    resources = statement.get("Resource").texts
    everything = [one for one in resources if one in ("*", "arn:aws:s3:::*", "arn:aws:s3:::*/*")]
    if everything and any(one.startswith("s3:") for one in named):
        yield _finding(document, "JK014", statement.get("Resource"), "every bucket of the account", line)
    whole = [one for one in resources if one.endswith("/*") and one.count("/") <= 2]
    if {"s3:putobject", "s3:deleteobject"} <= named and (whole or everything):
        yield _finding(document, "JK014", actions, "one user both writes and deletes backups", line)
    if statement.get("NotAction") or statement.get("NotResource"):
        yield _finding(document, "JK014", statement, "it allows whatever it does not name", line)


def _configurations(document: Document) -> Iterator[tuple[str, Node]]:
    """Texts that may be a NATS server's configuration."""
    if document.conf:
        yield document.conf, Node(document.conf, 1, 1)
    if document.kind in ("ConfigMap", "Secret"):
        for group in ("data", "stringData"):
            for key, node in document.node.get(group).items.items():
                if key.endswith(".conf"):
                    yield node.text, node


def _nats(document: Document, text: str, node: Node) -> Iterator[Finding]:
    bare = _COMMENT.sub(lambda match: " " * len(match[0]), text)
    for match in _CONF_EVERYTHING.finditer(bare):
        subjects = {quoted or plain for quoted, plain in _WORD.findall(match["list"])}
        deny = bare[: match.start()].rstrip().endswith("deny")
        wide = sorted(subjects & _NATS_EVERYTHING)
        if match["list"].startswith("{") and "deny" in match["list"].split("allow")[0]:
            continue
        if wide and not deny:
            line = node.line_of(bare.count("\n", 0, match.start("side")))
            yield _finding(document, "JK015", Node(None, line), f"{match['side']} {', '.join(wide)}")


def _finding(document: Document, rule: str, node: Node, what: str, line: int = 0) -> Finding:
    place = Place(document.file, line or node.line or document.node.line, document.title)
    return Finding(RULES[rule], place, what, RULES[rule].severity)
