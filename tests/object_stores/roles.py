"""The roles of deploy/policies on a real S3 server: users who have nothing but what the files grant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.object_stores.seaweed import Seaweed

POLICIES = Path(__file__).parents[2] / "deploy" / "policies"
#: By role, the name of a user who has no permission of its own.
USERS = {"writer": "of-writer", "reader": "of-reader", "expirer": "of-expirer"}


def statements(role: str, bucket: str) -> list[dict[str, Any]]:
    """The role's policy for a user of this server, as statements of a bucket's policy."""
    text = (POLICIES / f"aws-{role}.json").read_text().replace("BUCKET/PREFIX", bucket).replace("BUCKET", bucket)
    found: list[dict[str, Any]] = json.loads(text)["Statement"]
    principal = {"AWS": f"arn:aws:iam::000000000000:user/{USERS[role]}"}
    return [{**one, "Sid": f"{role}{one['Sid']}", "Principal": principal} for one in found]


def grant(seaweed: Seaweed, bucket: str, rules: list[dict[str, Any]]) -> None:
    """Let the users do in this bucket what the statements say, and nothing else."""
    policy = {"Version": "2012-10-17", "Statement": rules}
    answer = seaweed.request("PUT", f"/{bucket}?policy", body=json.dumps(policy).encode())
    assert answer.status == 204, answer


def grant_roles(seaweed: Seaweed, bucket: str) -> None:
    """Let each role's user do what its file says."""
    grant(seaweed, bucket, [one for role in USERS for one in statements(role, bucket)])
