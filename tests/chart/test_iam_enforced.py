"""
The IAM policies. `make verify-aws` on a server that enforces IAM and verifies
signatures: the policy of s3-sync is sufficient, and allows nothing else.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from tests import ROOT
from tests.chart import files
from tests.support.aws.servers import ProgramServer

ANYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}
STEPS = {"identity": "ok", "conditional_writes": "ok", "release": "ok", "role": "ok"}


@pytest.mark.parametrize(
    "path", sorted(files.SNIPPETS.glob("iam/*.json")), ids=lambda one: one.stem
)
def test_a_policy_allows_named_actions_on_named_resources_of_the_values(
    path: Path,
) -> None:
    bucket = files.load("s3-sync.native.yaml")["sidecars"]["bucket"]
    for statement in json.loads(path.read_text())["Statement"]:
        actions, places = (
            [found] if isinstance(found := statement.get(key, []), str) else found
            for key in ("Action", "Resource")
        )
        assert "Allow" == statement["Effect"]
        assert [] == [one for one in actions if "*" in one]
        if actions != ["ecr:GetAuthorizationToken"]:
            assert statement["Condition"] if path.stem.startswith("trust") else places
            assert [] == [one for one in places if one.rpartition(":")[2] == "*"]
        assert all(
            re.match(f"arn:aws:s3:::{bucket}(/|$)", one)
            for one in places
            if ":s3:" in one
        )


class MotoWithIam(ProgramServer):
    """
    `moto_server` as a process, because its IAM switch applies to a whole process.

    It allows the first three requests; conditions other than StringEquals count as met.
    """

    name = "moto with IAM"

    def command(self) -> list[str]:
        return [
            "env",
            "INITIAL_NO_AUTH_ACTION_COUNT=3",
            str(Path(sys.executable).with_name("moto_server")),
            f"--port={self.port}",
        ]


def test_verify_aws_proves_the_policy_of_s3_sync_and_removes_everything(
    tmp_path: Path,
) -> None:
    """
    The last step fails, here because there is no container tool.
    """
    with MotoWithIam(tmp_path) as moto:
        iam = boto3.Session("any", "any", region_name=moto.region).client(
            "iam", endpoint_url=moto.endpoint, config=Config(proxies={})
        )
        user = {"UserName": "admin", "PolicyName": "all"}
        iam.create_user(UserName="admin")
        iam.put_user_policy(
            **user,
            PolicyDocument=json.dumps(
                {"Version": "2012-10-17", "Statement": [ANYTHING]}
            ),
        )
        key = iam.create_access_key(UserName="admin")["AccessKey"]
        moto.access_key = key["AccessKeyId"]
        moto.secret_key = key["SecretAccessKey"]
        moto.client().create_bucket(Bucket="my-airflow-bucket")
        variables = {
            **moto.environment(),
            "AWS_ACCESS_KEY_ID": moto.access_key,
            "AWS_SECRET_ACCESS_KEY": moto.secret_key,
            "BUCKET": "my-airflow-bucket",
            "BUILDER": "none",
        }

        done = subprocess.run(
            [sys.executable, ROOT / "scripts" / "verify_aws.py"],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **variables},
            capture_output=True,
            text=True,
        )

        left = moto.client().list_object_versions(Bucket="my-airflow-bucket")
    results = dict(re.findall(r"^\| (\w+) \| (ok|FAILED)", done.stdout, re.MULTILINE))
    assert STEPS | {"ecr": "FAILED"} == results, done.stdout + done.stderr
    assert "123456789012" not in done.stdout
    assert done.stdout.endswith("\nEverything was removed.\n")
    assert 1 == done.returncode
    assert "Versions" not in left
