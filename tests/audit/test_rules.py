"""Each rule is broken by the one change that breaks it, and by nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jetkeep.audit import RULES, audit
from jetkeep.audit.findings import Finding
from tests.audit.planting import CONFIG, CRONJOB, config_map, good

ROOT = Path(__file__).parents[2]


def write(folder: Path, files: dict[str, str]) -> list[str]:
    for name, text in files.items():
        (folder / name).write_text(text)
    return [str(folder)]


def findings(folder: Path, changed: dict[str, str]) -> list[Finding]:
    return audit(write(folder, {**good(), **changed})).findings


def backup(old: str, new: str) -> dict[str, str]:
    text = CRONJOB.format(command="backup")
    assert old in text
    return {"backup.yaml": text.replace(old, new)}


def config(old: str, new: str) -> dict[str, str]:
    assert old in CONFIG
    return {"config.yaml": config_map(CONFIG.replace(old, new))}


def nats(text: str) -> dict[str, str]:
    return {"nats.conf": f"authorization {{ users: [ {{ user: jetkeep, permissions: {{\n{text}\n}} }} ] }}\n"}


def role(verbs: str, resources: str, more: str = "") -> dict[str, str]:
    text = f"kind: Role\nmetadata: {{name: jetkeep}}\nrules:\n- apiGroups: ['']\n  verbs: {verbs}\n  resources: {resources}\n{more}"
    return {"role.yaml": text}


def aws(*actions: str, resource: str = "arn:aws:s3:::b/p/*") -> dict[str, str]:
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": [resource]}
    return {"policy.json": json.dumps({"Version": "2012-10-17", "Statement": [statement]})}


VELERO = """\
apiVersion: velero.io/v1
kind: Schedule
metadata: {{name: daily, namespace: velero}}
spec:
  schedule: "0 4 * * *"
  template:
    includedNamespaces: [{namespace}]
    defaultVolumesToFsBackup: {default}
"""
KEEPER = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: jetkeep-keeper, namespace: jetkeep}
spec:
  template:
    spec:
      containers: []
      volumes:
        - name: backups
          persistentVolumeClaim: {claimName: jetkeep-backups}
"""


def test_good_manifests_are_clean(tmp_path: Path) -> None:
    report = audit(write(tmp_path, good()))
    assert (report.findings, report.unread, report.notices) == ([], [], [])
    assert (report.files, report.objects) == (5, 5)


CASES: list[tuple[str, str, dict[str, str]]] = [
    ("JK011", "a placeholder in the configuration", config("s3://acme-backups/jetkeep", "s3://REPLACE_ME/jetkeep")),
    ("JK011", "a placeholder in angle brackets", config("s3://acme-backups/jetkeep", "s3://<bucket>/jetkeep")),
    ("JK012", "a store without TLS", config('keep = { daily = 30 }', 'keep = { daily = 30 }\nendpoint = "http://10.1.2.3:9000"')),
    ("JK012", "plain http allowed", config('keep = { daily = 30 }', "keep = { daily = 30 }\nallow-http = true")),
    ("JK012", "plain http by a variable", backup("              env:\n", "              env:\n                - {name: AWS_ENDPOINT_URL, value: 'http://minio:9000'}\n")),
    ("JK012", "a server of elsewhere without TLS", config("[repositories.local]", '[sources.a]\nserver = "nats://nats.example.com:4222"\n\n[repositories.local]')),
    ("JK013", "a role of everything", role("['*']", "[pods]")),
    ("JK013", "a role that reads Secrets", role("[get, list]", "[secrets]")),
    ("JK013", "a role that enters pods", role("[create]", "[pods/exec]")),
    ("JK013", "the administrator's role", {"binding.yaml": "kind: ClusterRoleBinding\nmetadata: {name: b}\nroleRef: {kind: ClusterRole, name: cluster-admin}\nsubjects: [{kind: ServiceAccount, name: jetkeep, namespace: jetkeep}]\n"}),
    ("JK014", "every action of S3", aws("s3:*")),
    ("JK014", "a writer that deletes", aws("s3:PutObject", "s3:DeleteObject")),
    ("JK014", "every bucket", aws("s3:GetObject", resource="*")),
    ("JK014", "past object lock", aws("s3:BypassGovernanceRetention")),
    ("JK014", "a role of GCP", {"iam.yaml": "kind: IAMPolicyMember\nspec: {role: roles/storage.admin}\n"}),
    ("JK014", "a permission of GCP", {"gcs.yaml": "title: x\nincludedPermissions: [storage.buckets.setIamPolicy]\n"}),
    ("JK014", "a role of Azure", {"az.json": json.dumps({"DataActions": ["Microsoft.Storage/storageAccounts/blobServices/containers/blobs/*"]})}),
    ("JK015", "NATS: everything, in a list", nats('publish: [">"]')),
    ("JK015", "NATS: everything, alone", nats('publish = ">"')),
    ("JK015", "NATS: everything, as allowed", nats('publish: { allow: ["$JS.API.>"], deny: ["x"] }')),
    ("JK015", "NATS: in a ConfigMap", {"n.yaml": "kind: ConfigMap\ndata:\n  nats.conf: |\n    a\n    publish: \">\"\n"}),
    ("JK016", "root", backup("runAsNonRoot: true", "runAsUser: 0")),
    ("JK016", "escalation", backup("allowPrivilegeEscalation: false", "privileged: true")),
    ("JK016", "capabilities", backup("drop: [ALL]", "add: [SYS_ADMIN]")),
    ("JK016", "the host's network", backup("restartPolicy: Never", "hostNetwork: true")),
    ("JK016", "the host's files", backup("persistentVolumeClaim:\n                claimName: jetkeep-backups", "hostPath: {path: /}")),
    ("JK017", "a writable root", backup("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false")),
    ("JK018", "no limit of memory", backup("limits: {memory: 512Mi}", "limits: {cpu: 1}")),
    ("JK019", "no deadline", backup("      activeDeadlineSeconds: 3600\n", "")),
    ("JK020", "runs beside each other", backup("concurrencyPolicy: Forbid", "concurrencyPolicy: Replace")),
    ("JK021", "no tag", backup("jetkeep:0.1.0", "registry.example.com:5000/jetkeep")),
    ("JK021", "latest", backup("jetkeep:0.1.0", "jetkeep:latest")),
    ("JK022", "no rule what to keep", config("keep = { daily = 7 }", "")),
    ("JK022", "nothing expires", {"expire.yaml": CRONJOB.format(command="verify")}),
    ("JK022", "expire is suspended", {"expire.yaml": CRONJOB.format(command="expire").replace("spec:\n  schedule", "spec:\n  suspend: true\n  schedule")}),
    ("JK023", "off-site in the open", config('encrypt-to = ["age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq2m4dl"]', "")),
    ("JK024", "no alert", {"rules.yaml": "kind: ConfigMap\n"}),
    ("JK025", "no drill", {"drill.yaml": CRONJOB.format(command="verify")}),
    ("JK026", "Velero by default", {"velero.yaml": VELERO.format(namespace="jetkeep", default="true")}),
    ("JK026", "Velero by annotation", backup("        metadata:\n", "        metadata:\n          annotations: {backup.velero.io/backup-volumes: backups}\n")),
    ("JK026", "Velero without snapshots", {"velero.yaml": VELERO.format(namespace="jet*", default="false") + "    snapshotVolumes: false\n"}),
    ("JK026", "Velero, and a pod that does not tell of it", {"velero.yaml": VELERO.format(namespace="'*'", default="false") + "    snapshotVolumes: false\n", "keeper.yaml": KEEPER}),
    ("JK027", "an unknown key", config("keep = { daily = 7 }", "kep = { daily = 7 }\nkeep = { daily = 7 }")),
    ("JK027", "no TOML", config("keep = { daily = 7 }", "keep = { daily = 7 }\nx = ")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "changed"), [pytest.param(one, files, id=f"{one} {name}") for one, name, files in CASES]
)
def test_one_change_breaks_one_rule(tmp_path: Path, rule: str, changed: dict[str, str]) -> None:
    found = findings(tmp_path, changed)
    assert {one.rule.id for one in found} == {rule}
    assert all(one.place.line for one in found)


def test_every_rule_has_a_test() -> None:
    secrets = {f"JK{number:03}" for number in range(1, 11)}
    assert {one for one, _, _ in CASES} | secrets | {"JK090", "JK091"} == set(RULES)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(role("[get]", "[configmaps]"), id="a narrow role"),
        pytest.param(aws("s3:GetObject", "s3:PutObject"), id="a writer that adds"),
        pytest.param(nats('publish: { deny: [">"] }'), id="everything denied"),
        pytest.param(nats('# publish: ">"\npublish: ["$JS.API.INFO"]\nsubscribe: ["_INBOX.>"]'), id="a comment"),
        pytest.param({"velero.yaml": VELERO.format(namespace="other", default="true")}, id="Velero of another namespace"),
        pytest.param(
            {"velero.yaml": VELERO.format(namespace="jetkeep", default="true"), "keeper.yaml": KEEPER.replace("containers: []", "containers: [{name: a, image: 'jetkeep:0.1.0', securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, resources: {limits: {cpu: 1, memory: 1Gi}}}]")},
            id="Velero, and a keeper",
        ),
        pytest.param({"velero.yaml": VELERO.format(namespace="jetkeep", default="true"), "pvc.yaml": "kind: PersistentVolumeClaim\nmetadata: {name: jetkeep-backups, namespace: jetkeep, labels: {velero.io/exclude-from-backup: 'true'}}\n"}, id="Velero, and the claim excluded"),
        pytest.param({"velero.yaml": VELERO.format(namespace="jetkeep", default="true") + "    resourcePolicy: {kind: configmap, name: policy}\n", "policy.yaml": "kind: ConfigMap\nmetadata: {name: policy, namespace: velero}\ndata:\n  p: |\n    version: v1\n    volumePolicies: [{conditions: {pvcLabels: {a: b}}, action: {type: skip}}]\n", "pvc.yaml": "kind: PersistentVolumeClaim\nmetadata: {name: jetkeep-backups, namespace: jetkeep, labels: {a: b}}\n"}, id="Velero, and a policy that skips the claim"),
        pytest.param({"rules.yaml": "kind: ConfigMap\n", "config.yaml": config_map(CONFIG + '\n[heartbeat]\nurl = "env://URL"\n')}, id="a heartbeat in place of an alert"),
    ],
)  # fmt: skip
def test_what_breaks_no_rule_is_not_told(tmp_path: Path, changed: dict[str, str]) -> None:
    assert [one for one in findings(tmp_path, changed) if one.rule.id != "JK027"] == []


def test_a_finding_in_an_embedded_configuration_has_the_file_s_line(tmp_path: Path) -> None:
    [found] = findings(
        tmp_path, config('encrypt-to = ["age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq2m4dl"]', "")
    )
    text = (tmp_path / "config.yaml").read_text().splitlines()
    assert text[found.place.line - 1].strip() == "[repositories.offsite]"


def test_placeholders_of_a_template_are_meant(tmp_path: Path) -> None:
    paths = write(tmp_path, {**good(), **config("s3://acme-backups/jetkeep", "s3://REPLACE_ME/jetkeep")})
    assert audit(paths, template=True).findings == []


def test_our_policies_break_no_rule() -> None:
    assert audit([str(ROOT / "deploy" / "policies")], template=True).findings == []


def test_every_rule_is_documented_and_no_other() -> None:
    page = (ROOT / "docs" / "reference" / "audit-rules.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| JK")]
    told = {row[0].removeprefix("| "): (row[1].strip("`"), row[2]) for row in rows}
    assert told == {one.id: (one.name, one.severity.word) for one in RULES.values()}
