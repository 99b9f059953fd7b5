"""Each kind of secret is found where it stands, and never printed."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from jetkeep.audit import audit
from jetkeep.audit.credentials import hits, redacted
from jetkeep.cli import root
from tests.audit.planting import CRONJOB, jwt, pem, seed, word

UPPER = string.ascii_uppercase + string.digits
#: Rule, what is planted, and the part that must never be seen again.
PLANTED: dict[str, tuple[str, Callable[[], tuple[str, str]]]] = {
    "AWS access key": ("JK001", lambda: twice("AKIA" + word(16, UPPER))),
    "AWS secret key": ("JK001", lambda: of("aws_secret_access_key = {}", word(40, string.ascii_letters + string.digits))),
    "GCP service account": ("JK002", lambda: of('{{"type": "service_account", "private_key": "{}"}}', json.dumps(pem())[1:-1])),
    "GCP API key": ("JK002", lambda: twice("AIza" + word(35, string.ascii_letters + string.digits))),
    "Azure account key": ("JK003", lambda: of("DefaultEndpointsProtocol=https;AccountName=a;AccountKey={}", word(86, string.ascii_letters) + "==")),
    "Azure SAS": ("JK003", lambda: of("https://a.blob.core.windows.net/b?sv=2024-11-04&sig={}", word(43, string.ascii_letters) + "%3D")),
    "user's seed": ("JK004", lambda: twice(seed("U"))),
    "account's seed": ("JK004", lambda: twice(seed("A"))),
    "operator's seed": ("JK004", lambda: twice(seed("O"))),
    "user's JWT": ("JK004", lambda: twice(jwt("user"))),
    "creds file": ("JK004", lambda: of("-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n", jwt("user"))),
    "age identity": ("JK005", lambda: twice("AGE-SECRET-KEY-1" + word(58, UPPER))),
    "private key": ("JK006", lambda: twice(pem("EC PRIVATE KEY"))),
    "password in a URL": ("JK007", lambda: of("nats://jetkeep:{}@nats:4222", word(12, string.ascii_letters))),
    "token in a URL": ("JK007", lambda: of("nats://{}@nats.example.com:4222", word(20, string.ascii_letters))),
    "GitHub token": ("JK008", lambda: twice("ghp_" + word(36, string.ascii_letters + string.digits))),
    "Slack webhook": ("JK008", lambda: of("https://hooks.slack.com/services/T0AB/B0CD/{}", word(24, string.ascii_letters))),
    "random word": ("JK008", lambda: twice(word(44, string.ascii_letters + string.digits))),
}  # fmt: skip


def twice(secret: str) -> tuple[str, str]:
    return secret, secret


def of(form: str, secret: str) -> tuple[str, str]:
    return form.format(secret), secret


def config_map(text: str) -> str:
    return yaml.safe_dump({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"note": text}})


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_secret_is_found_by_its_rule(tmp_path: Path, kind: str) -> None:
    rule, make = PLANTED[kind]
    text, _ = make()
    (tmp_path / "a.yaml").write_text(config_map(text))
    found = audit([str(tmp_path)]).findings
    assert rule in {one.rule.id for one in found}


@pytest.mark.parametrize("shape", ["text", "json", "sarif"])
@pytest.mark.parametrize("kind", PLANTED)
def test_no_form_of_the_result_holds_the_secret(tmp_path: Path, kind: str, shape: str) -> None:
    text, secret = PLANTED[kind][1]()
    (tmp_path / "a.yaml").write_text(config_map(text))
    (tmp_path / "b.toml").write_text(f"[repositories.x]\nurl = {json.dumps(text)}\nwrong = {json.dumps(secret)}\n")
    if hits(secret):
        (tmp_path / "c.yaml").write_text(yaml.safe_dump({secret: {secret: text}}))
    (tmp_path / "d.yaml").write_text(f"a: [{secret!r}\n")
    told = CliRunner().invoke(
        root, ["audit", str(tmp_path), "--format", shape, "--show-suppressed"], standalone_mode=False
    )
    assert told.exception is None
    for line in [one for one in secret.splitlines() if "BEGIN" not in one and "END" not in one]:
        assert line not in told.output
        assert json.dumps(line)[1:-1] not in told.output


def test_a_secret_is_found_in_the_line_where_it_stands(tmp_path: Path) -> None:
    text = (
        f"kind: ConfigMap\ndata:\n  run.sh: |\n    one\n    two\n    export AWS_ACCESS_KEY_ID=AKIA{word(16, UPPER)}\n"
    )
    (tmp_path / "a.yaml").write_text(text)
    [found] = audit([str(tmp_path)]).findings
    assert (found.rule.id, found.place.line) == ("JK001", 6)


def test_a_secret_inside_of_base64_is_found(tmp_path: Path) -> None:
    value = base64.b64encode(f"seed: {seed()}\n".encode()).decode()
    (tmp_path / "a.yaml").write_text(
        f"apiVersion: v1\nkind: Secret\nmetadata: {{name: x}}\ndata:\n  nats.creds: {value}\n"
    )
    assert [one.rule.id for one in audit([str(tmp_path)]).findings] == ["JK004"]


def test_any_other_value_of_a_secret_in_a_file_is_told_once(tmp_path: Path) -> None:
    values = "  password: correct-horse\n  empty: ''\n  NATS_URL: nats://nats.nats.svc:4222\n"
    (tmp_path / "a.yaml").write_text(f"apiVersion: v1\nkind: Secret\nstringData:\n{values}")
    [found] = audit([str(tmp_path)]).findings
    assert (found.rule.id, found.place.line) == ("JK010", 4)


def test_a_literal_variable_that_is_called_a_secret_is_found(tmp_path: Path) -> None:
    literal = "                - {name: NATS_TOKEN, value: letmein}\n"
    text = CRONJOB.format(command="backup").replace("              env:\n", "              env:\n" + literal)
    (tmp_path / "a.yaml").write_text(text)
    found = [one for one in audit([str(tmp_path)]).findings if one.rule.id == "JK009"]
    assert len(found) == 1
    assert "NATS_TOKEN" in found[0].what
    assert "letmein" not in found[0].what


@pytest.mark.parametrize(
    "text",
    [
        "nats://nats.nats.svc:4222",
        "nats://$(USER):$(PASSWORD)@nats:4222",
        "nats://u:${PASSWORD}@nats:4222",
        "env://NATS_PASSWORD",
        "jetkeep@sha256:" + "0123456789abcdef" * 4,
        "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq2m4dl",
        "U" + "A" * 55,
        "arn:aws:iam::111122223333:role/jetkeep-backup-writer",
        "SUPERCALIFRAGILISTICEXPIALIDOCIOUSSUPERCALIFRAGILISTICEXPI",
        "application/vnd.oci.image.manifest.v1+json and JetkeepBackupNotMadeForTwentyFiveHours",
        "sum by (account, stream_name) (jetkeep_newest_backup_timestamp_seconds)",
    ],
)
def test_what_is_public_is_no_secret(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(config_map(text))
    assert audit([str(tmp_path)]).findings == []


def test_public_jwts_and_certificates_are_no_secrets(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(config_map(f"{jwt('account')}\n{jwt('operator')}\n{pem('CERTIFICATE')}"))
    assert audit([str(tmp_path)]).findings == []


def test_redaction_takes_every_form_out_of_a_message() -> None:
    text, secret = of("at nats://jetkeep:{}@nats", word(12, string.ascii_letters))
    assert hits(text)
    assert secret not in redacted(text)
