"""
The S3 policies on a server that enforces IAM and verifies signatures.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.chart import policies
from tests.support.aws.moto_iam import MotoWithIam

BUCKET = "my-airflow-bucket"
S3_SYNC = str(Path(sys.executable).parent / "s3-sync")
Environments = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environments]:
    """
    A user for each policy, and for the policy of s3-sync without each of its statements.
    """
    policy = policies.load("s3-sync.json")
    with MotoWithIam(tmp_path_factory.mktemp("iam")) as moto:
        s3 = moto.aws("s3")
        s3.create_bucket(Bucket=BUCKET)
        for key in ("dags/a.py", "dags-old/a.py", "logs/a.log"):
            s3.put_object(Bucket=BUCKET, Key=key, Body=b"x = 1\n")
        found = {
            name: moto.user_with(policies.load(name))
            for name in ("s3-sync.json", "s3-sync-publish.json", "remote-logs.json")
        }
        for statement in policy["Statement"]:
            lesser = copy.deepcopy(policy)
            lesser["Statement"].remove(statement)
            found[f"without {statement['Action']}"] = moto.user_with(lesser)
        moto.enforce()
        yield found


def s3_sync(user: dict[str, str], folder: Path, *arguments: str, **settings: str) -> str:
    """
    Run s3-sync until it exits; return its output and exit code.
    """
    done = subprocess.run(
        [S3_SYNC, *arguments],
        env={
            **user,
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "AWS_BUCKET": BUCKET,
            "KEY_PATH": "dags",
            "DEST_PATH": str(folder / "dags"),
            **settings,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return f"{done.stdout}{done.stderr}exit code {done.returncode}"


def test_policy_permissions_are_sufficient_for_s3_sync(users: Environments, tmp_path: Path) -> None:
    said = s3_sync(users["s3-sync.json"], tmp_path, S3_SYNC_ONE_SHOT="true")

    assert said.endswith("exit code 0"), said
    assert "x = 1\n" == (tmp_path / "dags" / "a.py").read_text()


@pytest.mark.parametrize("action", ["s3:ListBucket", "s3:GetObject"])
def test_check_reports_the_missing_policy_statement(
    users: Environments, tmp_path: Path, action: str
) -> None:
    said = s3_sync(users[f"without {action}"], tmp_path, "check")

    assert said.endswith("exit code 3"), said
    assert f'"Action": "{action}"' in said
    assert 1 == said.count("FAIL")


def test_check_fails_for_a_prefix_outside_the_policy(users: Environments, tmp_path: Path) -> None:
    said = s3_sync(users["s3-sync.json"], tmp_path, "check", KEY_PATH="dags-old")

    assert said.endswith("exit code 3"), said
    assert f'"Resource": "arn:aws:s3:::{BUCKET}/dags-old/*"' in said


@pytest.mark.parametrize(
    ("name", "prefix", "other"),
    [("s3-sync-publish.json", "dags-releases", "logs"), ("remote-logs.json", "logs", "dags")],
)
def test_writers_can_write_only_below_their_prefix_and_cannot_delete(
    users: Environments, name: str, prefix: str, other: str
) -> None:
    user = users[name]
    s3 = boto3.client(
        "s3",
        endpoint_url=user["AWS_ENDPOINT_URL"],
        aws_access_key_id=user["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=user["AWS_SECRET_ACCESS_KEY"],
        region_name=user["AWS_DEFAULT_REGION"],
        config=Config(proxies={}, s3={"addressing_style": "path"}),
    )

    s3.put_object(Bucket=BUCKET, Key=f"{prefix}/b", Body=b"x")
    s3.get_object(Bucket=BUCKET, Key=f"{prefix}/b")
    s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")

    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_object(Bucket=BUCKET, Key=f"{other}/b", Body=b"x")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.delete_object(Bucket=BUCKET, Key=f"{prefix}/b")
