"""
Tries in a real AWS account what needs AWS, and prints a report to paste into an issue.

    make verify-aws BUCKET=my-airflow-bucket

What it creates is named `airflow-sidecars-verify-` and eight hexadecimal digits: a
prefix in the bucket, a role and an ECR repository. All of it is removed at the end,
also after a failure or Ctrl-C; the report lists what could not be removed. It reads no
other key of the bucket.

Exit codes: 0 if nothing failed and everything was removed; 1 otherwise; 2 for a wrong
setting.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

ROOT = Path(__file__).parents[1]
POLICY = ROOT / "charts-snippets" / "iam" / "s3-sync.json"
S3_SYNC = str(Path(sys.executable).with_name("s3-sync"))
DAG = b"print('verified')\n"
KEYS = ("AccessKeyId", "SecretAccessKey", "SessionToken")
# STS and S3 may not know a new role for some seconds.
RETRIES = 6
client: Callable[..., Any] = boto3.client


class Trial:
    """
    The steps, in the order of `STEPS`; each returns what it has shown.

    Attributes:
        removals: Calls that remove each resource, noted before it is created.
    """

    def __init__(self, bucket: str, folder: str) -> None:
        self.removals: list[tuple[Callable[..., object], dict[str, Any]]] = []
        self._bucket = bucket
        self._folder = folder
        self._name = f"airflow-sidecars-verify-{uuid.uuid4().hex[:8]}"
        self._account = self._caller = ""

    def identity(self) -> str:
        said = client("sts").get_caller_identity()
        self._account = said["Account"]
        self._caller = said["Arn"]
        return self._caller.split("/")[0]

    def conditional_writes(self) -> str:
        versions = boto3.resource("s3").Bucket(self._bucket).object_versions
        self.removals.append(
            (_delete, {"versions": versions.filter(Prefix=f"{self._name}/")})
        )
        write = client("s3").put_object
        at = {"Bucket": self._bucket, "Key": f"{self._name}/conditional"}
        first = write(**at, IfNoneMatch="*", Body=b"1")["ETag"]
        write(**at, IfMatch=first, Body=b"2")
        for condition in ({"IfNoneMatch": "*"}, {"IfMatch": first}):
            _refused("PreconditionFailed", write, **at, **condition)
        return "If-None-Match and If-Match"

    def release(self) -> str:
        Path(self._folder, "verified.py").write_bytes(DAG)
        _run(S3_SYNC, "publish", self._folder, f"s3://{self._bucket}/{self._name}/dags")
        self._download(os.environ)
        return "published, and downloaded by a one-shot"

    def role(self) -> str:
        iam = client("iam")
        role = {"RoleName": self._name}
        policy = {**role, "PolicyName": "s3-sync"}
        trust = {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"AWS": self._caller},
        }
        self.removals.append((iam.delete_role, role))
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        arn = iam.create_role(**role, AssumeRolePolicyDocument=document)["Role"]["Arn"]
        self.removals.append((iam.delete_role_policy, policy))
        text = POLICY.read_text().replace("my-airflow-bucket", self._bucket)
        iam.put_role_policy(
            **policy, PolicyDocument=text.replace("dags/*", f"{self._name}/dags/*")
        )
        for _ in range(RETRIES):
            try:
                return self._act_as(arn)
            except (ClientError, RuntimeError):
                time.sleep(3)
        return self._act_as(arn)

    def ecr(self) -> str:
        ecr = client("ecr")
        repository = {"repositoryName": f"{self._name}/s3-sync"}
        self.removals.append((ecr.delete_repository, {**repository, "force": True}))
        host = f"{self._account}.dkr.ecr.{ecr.meta.region_name}.amazonaws.com"
        _run(
            "make",
            "--silent",
            "push/s3-sync",
            f"REGISTRY={host}/{self._name}",
            "TAG=verify",
        )
        return "created a repository, logged in and pushed s3-sync"

    STEPS = (identity, conditional_writes, release, role, ecr)

    def remove(self) -> list[str]:
        """
        Remove the newest first; return a line for each that is still there.
        """
        left = []
        for remove, what in reversed(self.removals):
            try:
                remove(**what)
            except Exception as error:  # noqa: BLE001 - the others must still be removed
                if not re.search("NoSuch|NotFound", str(error)):
                    left.append(f"Not removed: {remove.__name__} {what}: {error}")
        return left or ["Everything was removed."]

    def _act_as(self, role: str) -> str:
        given = client("sts").assume_role(RoleArn=role, RoleSessionName="verify")[
            "Credentials"
        ]
        keys = {re.sub("(?<=.)(?=[A-Z])", "_", f"Aws{key}"): given[key] for key in KEYS}
        self._download(
            os.environ | {name.upper(): value for name, value in keys.items()}
        )
        s3 = client("s3", **{name.lower(): value for name, value in keys.items()})
        for key, send in (("dags/new", s3.put_object), ("conditional", s3.get_object)):
            _refused(
                "AccessDenied", send, Bucket=self._bucket, Key=f"{self._name}/{key}"
            )
        return "reads its prefix; cannot write, or read anything else"

    def _download(self, variables: Mapping[str, str]) -> None:
        with tempfile.TemporaryDirectory() as target:
            settings = {"AWS_BUCKET": self._bucket, "KEY_PATH": f"{self._name}/dags"}
            settings |= {"DEST_PATH": target, "S3_SYNC_SOURCE": "release"}
            settings |= {"S3_SYNC_LAYOUT": "snapshot", "S3_SYNC_ONE_SHOT": "true"}
            settings |= {"S3_SYNC_ONE_SHOT_DEADLINE": "10s"}
            _run(S3_SYNC, variables={**variables, **settings})
            if Path(target, "current", "verified.py").read_bytes() != DAG:
                raise RuntimeError("the downloaded DAG differs from the published one")


def _delete(versions: Any) -> None:
    for one in versions:
        one.delete()


def _refused(code: str, send: Callable[..., object], **request: str) -> None:
    """
    Send a request that AWS must refuse.
    """
    try:
        send(**request)
    except ClientError as error:
        if code not in str(error):
            raise
    else:
        raise RuntimeError(f"a request was allowed, but {code} was expected")


def _run(*command: str, variables: Mapping[str, str] = os.environ) -> None:
    done = subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or [""]
        raise RuntimeError(f"{command[:2]} exited with {done.returncode}: {said[-1]}")


def main() -> int:
    """
    Run the steps until one fails, remove their resources, and print the report.
    """
    bucket = os.environ.get("BUCKET")
    if not bucket or not boto3.Session().region_name:
        sys.stderr.write(
            "set BUCKET to a bucket of yours, and AWS_DEFAULT_REGION to its region\n"
        )
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lines = ["| step | result | details |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(bucket, folder)
        try:
            for step in trial.STEPS:
                sys.stderr.write(f"{step.__name__} …\n")
                lines.append(f"| {step.__name__} | ok | {step(trial)} |")
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - always report and remove
            said = " ".join(str(error).split()) or "interrupted"
            lines.append(f"| {step.__name__} | FAILED | {said} |")
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        lines += ["", *trial.remove()]
    report = "\n".join(lines)
    sys.stdout.write(re.sub(r"\b\d{12}\b", "<account>", report) + "\n")
    return int("FAILED" in report or "Not removed" in report)


if __name__ == "__main__":
    sys.exit(main())
