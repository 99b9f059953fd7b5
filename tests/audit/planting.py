"""Manifests with nothing wrong, and secrets that are made when the test runs: none stands in the repository."""

from __future__ import annotations

import base64
import binascii
import json
import random
import string

DICE = random.Random(7)
BASE64 = string.ascii_letters + string.digits + "+/"

CONFIG = """\
[repositories.local]
url = "/backups"
keep = { daily = 7 }

[repositories.offsite]
url = "s3://acme-backups/jetkeep"
keep = { daily = 30 }
encrypt-to = ["age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq2m4dl"]
"""

CRONJOB = """\
apiVersion: batch/v1
kind: CronJob
metadata:
  name: jetkeep-{command}
  namespace: jetkeep
spec:
  schedule: "0 2 * * *"
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 3600
  jobTemplate:
    spec:
      activeDeadlineSeconds: 3600
      template:
        metadata:
          labels:
            app.kubernetes.io/name: jetkeep
        spec:
          restartPolicy: Never
          securityContext:
            runAsNonRoot: true
            seccompProfile:
              type: RuntimeDefault
          containers:
            - name: jetkeep
              image: jetkeep:0.1.0
              args: [{command}]
              env:
                - name: NATS_PASSWORD
                  valueFrom:
                    secretKeyRef: {{name: jetkeep-credentials, key: password}}
              resources:
                requests: {{cpu: 100m, memory: 128Mi}}
                limits: {{memory: 512Mi}}
              securityContext:
                allowPrivilegeEscalation: false
                readOnlyRootFilesystem: true
                capabilities:
                  drop: [ALL]
              volumeMounts:
                - name: backups
                  mountPath: /backups
          volumes:
            - name: backups
              persistentVolumeClaim:
                claimName: jetkeep-backups
"""

RULE = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: jetkeep
spec:
  groups:
    - name: jetkeep
      rules:
        - alert: JetkeepBackupFailed
          expr: time() - jetkeep_last_success_timestamp_seconds > 90000
"""


def config_map(toml: str = CONFIG) -> str:
    """jetkeep.toml in a ConfigMap; its text begins in the file's line 8."""
    text = "".join(f"    {line}\n" if line else "\n" for line in toml.splitlines())
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: jetkeep-config\n  namespace: jetkeep\ndata:\n  jetkeep.toml: |\n{text}"


def good() -> dict[str, str]:
    """Files in which no rule is broken."""
    found = {f"{one}.yaml": CRONJOB.format(command=one) for one in ("backup", "expire", "drill")}
    return {**found, "config.yaml": config_map(), "rules.yaml": RULE}


def word(length: int, alphabet: str = BASE64) -> str:
    """Random characters, with a small and a capital letter and a digit among them where there are such."""
    text = "".join(DICE.choice(alphabet) for _ in range(length))
    return text if length < 12 else "aB3" + text[3:] if "a" in alphabet and "B" in alphabet else text


def seed(kind: str = "U") -> str:
    """An nkey seed with the right checksum."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    role = letters.index(kind) << 3
    raw = bytes([0b10010000 | role >> 5, (role & 31) << 3]) + DICE.randbytes(32)
    raw += binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw).decode().rstrip("=")


def jwt(kind: str) -> str:
    """A JWT as nsc makes them, for `user`, `account` or `operator`."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = {"jti": word(32, string.ascii_uppercase), "nats": {"type": kind, "version": 2}}
    return (
        f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(claims)}.{word(86, string.ascii_letters + string.digits)}"
    )


def pem(kind: str = "PRIVATE KEY") -> str:
    """What a PEM file looks like."""
    return f"-----BEGIN {kind}-----\n{word(64)}\n{word(64)}\n-----END {kind}-----\n"
