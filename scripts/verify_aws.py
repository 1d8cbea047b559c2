"""
Tests all features that need AWS in a real account, and prints a report to paste into an issue.

    make verify-aws BUCKET=my-airflow-bucket

All resources that it creates are named `airflow-sidecars-verify-` and eight hexadecimal digits: a
prefix in the bucket, a role, an ECR repository and a CodeCommit repository. They are removed at the
end, even after a failure or Ctrl-C; the report lists those that could not be removed. It reads no
other key of the bucket, and changes nothing that it did not create.

Other settings are environment variables: those of AWS, KMS_KEY (an id or ARN; default: aws/s3), and
for IRSA CLUSTER, and NAMESPACE and SERVICE_ACCOUNT of an existing service account.

Exit codes: 0 if nothing failed and everything was removed; 1 otherwise; 2 for a wrong setting; 130
after Ctrl-C.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

ROOT = Path(__file__).parents[1]
IAM = ROOT / "charts-snippets" / "iam"
BIN = Path(sys.executable).parent
DAG = b"print('verified')\n"
# STS and S3 may not know a new role for some seconds.
PATIENCE_SECONDS = 60
GONE = {
    "NoSuchBucket",
    "NoSuchEntity",
    "RepositoryDoesNotExistException",
    "RepositoryNotFoundException",
}
# Removes all other credentials: a profile's role would take precedence over a pod's token.
NOBODY = {
    "AWS_ACCESS_KEY_ID": None,
    "AWS_SECRET_ACCESS_KEY": None,
    "AWS_SESSION_TOKEN": None,
    "AWS_PROFILE": None,
    "AWS_DEFAULT_PROFILE": None,
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
# The error code of CodeCommit for an account that it does not accept.
CLOSED = "OperationNotPermittedException"


class NotTried(Exception):
    """
    A step was skipped because a requirement is missing; the text describes it.
    """


class Failed(Exception):
    """
    AWS or a program of this repository did not behave as expected.
    """


@dataclass
class Report:
    """
    The results of the steps, and the resources that could not be removed.
    """

    account: str = ""
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.left and all(result != "FAILED" for _, result, _ in self.rows)

    def text(self) -> str:
        """
        Return the report, without the account number.
        """
        lines = ["| step | result | details |", "|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        lines += [f"\nNot removed: {one}" for one in self.left] or ["\nAll resources were removed."]
        text = "\n".join(lines) + "\n"
        return text.replace(self.account, "<account>") if self.account else text


class Trial:
    """
    A run of all steps.

    Args:
        environ: The settings.
        report: Receives a row for each step.
        undo: Removes the resources that the steps create.
    """

    def __init__(self, environ: Mapping[str, str], report: Report, undo: ExitStack) -> None:
        self.bucket = environ["BUCKET"]
        self.environ = environ
        self.report = report
        self._undo = undo
        self.name = f"airflow-sidecars-verify-{uuid.uuid4().hex[:8]}"
        self.folder = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        (self.folder / "dags").mkdir()
        (self.folder / "dags" / "verified.py").write_bytes(DAG)
        self.session = boto3.Session()
        self.region = str(self.session.region_name)
        self.caller = ""
        self._has_release = False
        self.s3: Any = self.session.client("s3")

    # Steps, in order

    def identity(self) -> str:
        """
        Return the caller's type and region.
        """
        said = self.session.client("sts").get_caller_identity()
        self.report.account, self.caller = said["Account"], said["Arn"]
        return f"{said['Arn'].split('/')[0]}, {self.region}"

    def conditional_writes(self) -> str:
        """
        Check that conditional writes protect an existing or changed key: publishers rely on it.
        """
        self._remove_later(f"s3://{self.bucket}/{self.name}/", self._remove_objects)
        key = f"{self.name}/conditional"
        first = self.s3.put_object(Bucket=self.bucket, Key=key, Body=b"1", IfNoneMatch="*")
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=b"2", IfMatch=first["ETag"])
        for condition in ({"IfNoneMatch": "*"}, {"IfMatch": first["ETag"]}):
            with _refused("PreconditionFailed"):
                self.s3.put_object(Bucket=self.bucket, Key=key, Body=b"3", **condition)
        return "If-None-Match and If-Match"

    def release(self) -> str:
        """
        Publish a release with s3-sync, and download it.
        """
        prefix = f"{self.name}/dags"
        self._program(
            "s3-sync", "publish", str(self.folder / "dags"), f"s3://{self.bucket}/{prefix}"
        )
        self._bring(prefix, {"S3_SYNC_SOURCE": "release", "S3_SYNC_LAYOUT": "snapshot"})
        self._has_release = True
        return "published, and downloaded by a one-shot"

    def kms(self) -> str:
        """
        Download an object that is encrypted with KMS.
        """
        key = self.environ.get("KMS_KEY", "")
        chosen = {"SSEKMSKeyId": key} if key else {}
        self.s3.put_object(
            Bucket=self.bucket,
            Key=f"{self.name}/kms/verified.py",
            Body=DAG,
            ServerSideEncryption="aws:kms",
            **chosen,
        )
        self._bring(f"{self.name}/kms", {})
        return "with KMS_KEY" if key else "with aws/s3; set KMS_KEY to use another key"

    def role(self) -> str:
        """
        Check that the policy s3-sync.json is sufficient for s3-sync, and allows nothing else.
        """
        self._need_release()
        trust = _policy("Allow", "sts:AssumeRole", {"AWS": self.caller})
        arn = self._make_role(self.name, trust)
        given = self._patiently(lambda: self._assumed(arn))
        self._patiently(lambda: self._bring_release_as(given))
        theirs = boto3.client(
            "s3",
            region_name=self.region,
            aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=given["AWS_SESSION_TOKEN"],
        )
        with _refused("AccessDenied"):
            theirs.put_object(Bucket=self.bucket, Key=f"{self.name}/dags/x", Body=b"")
        with _refused("AccessDenied"):
            theirs.get_object(Bucket=self.bucket, Key=f"{self.name}/conditional")
        return "can read its prefix; cannot write or read anything else"

    def irsa(self) -> str:
        """
        Check that the token of a service account is sufficient for s3-sync, as in a pod.
        """
        cluster = self.environ.get("CLUSTER")
        if not cluster:
            raise NotTried("set CLUSTER to the name of an EKS cluster")
        if not shutil.which("kubectl"):
            raise NotTried("kubectl is not on PATH")
        self._need_release()
        known = self.session.client("eks").describe_cluster(name=cluster)["cluster"]
        try:
            issuer = known["identity"]["oidc"]["issuer"].removeprefix("https://")
        except KeyError:  # it is being created, or only registered
            raise Failed(f"the cluster {cluster} has no OIDC issuer") from None
        place = self.environ.get("NAMESPACE") or "airflow"
        account = self.environ.get("SERVICE_ACCOUNT") or "airflow-dag-processor"
        provider = f"arn:aws:iam::{self.report.account}:oidc-provider/{issuer}"
        policy = _policy("Allow", "sts:AssumeRoleWithWebIdentity", {"Federated": provider})
        policy["Statement"][0]["Condition"] = {
            "StringEquals": {
                f"{issuer}:aud": "sts.amazonaws.com",
                f"{issuer}:sub": f"system:serviceaccount:{place}:{account}",
            }
        }
        arn = self._make_role(f"{self.name}-irsa", policy)
        asked = ("create", "token", account, "--audience=sts.amazonaws.com")
        token = self.folder / "token"
        token.write_text(_run("kubectl", f"--namespace={place}", *asked))
        given = {"AWS_ROLE_ARN": arn, "AWS_WEB_IDENTITY_TOKEN_FILE": str(token)}
        self._patiently(lambda: self._bring_release_as(given))
        return "with the token that a pod would have"

    def ecr(self) -> str:
        """
        Create a repository and push an image with `make push`.
        """
        try:
            _run("scripts/container-tool", "build")
        except Failed:
            raise NotTried("no container tool works on this machine") from None
        client = self.session.client("ecr")
        repository = f"{self.name}/s3-sync"
        self._remove_later(
            f"ECR repository {repository}",
            lambda: client.delete_repository(repositoryName=repository, force=True),
        )
        registry = f"{self.report.account}.dkr.ecr.{self.region}.amazonaws.com/{self.name}"
        _run("make", "--silent", "push/s3-sync", f"REGISTRY={registry}", "TAG=verify")
        (found,) = client.describe_repositories(repositoryNames=[repository])["repositories"]
        if found["imageTagMutability"] != "IMMUTABLE":
            raise Failed("the tags of the repository are mutable")
        return "pushed s3-sync with immutable tags"

    def codecommit(self) -> str:
        """
        Read a CodeCommit repository with git and the caller's credentials.
        """
        client = self.session.client("codecommit")
        self._remove_later(
            f"CodeCommit repository {self.name}",
            lambda: client.delete_repository(repositoryName=self.name),
        )
        try:
            client.create_repository(repositoryName=self.name)
        except ClientError as error:
            if error.response["Error"]["Code"] == CLOSED:
                raise NotTried(error.response["Error"]["Message"]) from None
            raise
        remote = f"codecommit::{self.region}://{self.name}"
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # with git-remote-codecommit
        _run("git", "ls-remote", remote, variables={**os.environ, "PATH": path})
        return "git ls-remote"

    STEPS = (identity, conditional_writes, release, kms, role, irsa, ecr, codecommit)

    def run(self) -> None:
        """
        Run every step, even after a failed step.
        """
        for step in self.STEPS:
            title = step.__name__.replace("_", " ")
            sys.stderr.write(f"{title} …\n")
            try:
                row = (title, "ok", step(self))
            except NotTried as reason:
                row = (title, "skipped", str(reason))
            except (BotoCoreError, ClientError, Failed) as error:
                row = (title, "FAILED", " ".join(str(error).split()))
            except Exception as error:  # noqa: BLE001 - the report must be printed in any case
                row = (title, "FAILED", " ".join(repr(error).split()))
            self.report.rows.append(row)
            if row[:2] == ("identity", "FAILED"):
                return

    # Helpers of the steps

    def _remove_later(self, what: str, remove: Callable[[], object]) -> None:
        """
        Register a removal; called before the resource is created, so that no gap exists.
        """

        def removed() -> None:
            try:
                remove()
            except Exception as error:  # noqa: BLE001 - the other resources must still be removed
                code = getattr(error, "response", {}).get("Error", {}).get("Code")
                if code not in GONE:
                    self.report.left.append(f"{what}: {error}")

        self._undo.callback(removed)

    def _remove_objects(self) -> None:
        pages = self.s3.get_paginator("list_object_versions")
        for page in pages.paginate(Bucket=self.bucket, Prefix=f"{self.name}/"):
            for one in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                self.s3.delete_object(
                    Bucket=self.bucket, Key=one["Key"], VersionId=one["VersionId"]
                )

    def _make_role(self, name: str, trust: dict[str, Any]) -> str:
        """
        Create a role with the policy for s3-sync; return its ARN.
        """
        iam = self.session.client("iam")
        self._remove_later(f"role {name}", lambda: iam.delete_role(RoleName=name))
        made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
        text = (IAM / "s3-sync.json").read_text().replace("my-airflow-bucket", self.bucket)
        self._remove_later(
            f"policy of role {name}",
            lambda: iam.delete_role_policy(RoleName=name, PolicyName="s3-sync"),
        )
        iam.put_role_policy(
            RoleName=name,
            PolicyName="s3-sync",
            PolicyDocument=text.replace("dags/*", f"{self.name}/dags/*"),
        )
        return str(made["Role"]["Arn"])

    def _assumed(self, arn: str) -> dict[str, str]:
        sts = self.session.client("sts")
        made = sts.assume_role(RoleArn=arn, RoleSessionName="verify")["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
            "AWS_SESSION_TOKEN": made["SessionToken"],
        }

    def _bring(self, prefix: str, variables: Mapping[str, str | None]) -> None:
        """
        Run s3-sync once into an empty folder, and check that the DAG arrives.
        """
        target = Path(tempfile.mkdtemp(dir=self.folder))
        settings = {
            "AWS_BUCKET": self.bucket,
            "KEY_PATH": prefix,
            "DEST_PATH": str(target),
            "S3_SYNC_ONE_SHOT": "true",
            "S3_SYNC_ONE_SHOT_DEADLINE": "20s",
            **variables,
        }
        self._program("s3-sync", variables=settings)
        shown = target / "current" if "S3_SYNC_LAYOUT" in variables else target
        if (shown / "verified.py").read_bytes() != DAG:
            raise Failed("the downloaded DAG differs from the uploaded one")

    def _need_release(self) -> None:
        if not self._has_release:
            raise NotTried("requires a successful release step")

    def _bring_release_as(self, given: Mapping[str, str]) -> None:
        """
        Download the release with only these credentials.
        """
        of_release = {"S3_SYNC_SOURCE": "release", "S3_SYNC_LAYOUT": "snapshot"}
        self._bring(f"{self.name}/dags", {**of_release, **NOBODY, **given})

    def _program(
        self, name: str, *arguments: str, variables: Mapping[str, str | None] | None = None
    ) -> None:
        merged = {"AWS_DEFAULT_REGION": self.region, **os.environ, **(variables or {})}
        _run(str(BIN / name), *arguments, variables=merged)

    def _patiently(self, attempt: Callable[[], Any]) -> Any:
        """
        Retry until the new IAM role has propagated.
        """
        ends = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return attempt()
            except (ClientError, Failed):
                if time.monotonic() > ends:
                    raise
                time.sleep(2)


def _policy(effect: str, action: str, principal: Mapping[str, str]) -> dict[str, Any]:
    statement = {"Effect": effect, "Action": action, "Principal": dict(principal)}
    return {"Version": "2012-10-17", "Statement": [statement]}


@contextmanager
def _refused(code: str) -> Iterator[None]:
    """
    Expect that AWS refuses the request in a `with` block.
    """
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] != code:
            raise
    else:
        raise Failed(f"the request was allowed, but {code} was expected")


def _run(*command: str, variables: Mapping[str, str | None] | None = None) -> str:
    """
    Run a program and return its output.

    Raises:
        Failed: It cannot be started, or failed; with its last output line.
    """
    given = {k: v for k, v in (variables or os.environ).items() if v is not None}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=given, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise Failed(f"{Path(command[0]).name} cannot be started: {error.strerror}") from None
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or [""]
        raise Failed(f"{Path(command[0]).name} exited with {done.returncode}: {said[-1][:400]}")
    return done.stdout


def main() -> int:
    """
    Run all steps, remove their resources, and print the report.
    """
    bucket = os.environ.get("BUCKET", "")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
        sys.stderr.write(f"BUCKET={bucket}: set it to the name of a bucket of yours\n")
        return 2
    try:
        region = boto3.Session().region_name
    except BotoCoreError as error:
        sys.stderr.write(f"AWS_PROFILE: {error}\n")
        return 2
    if not region:
        sys.stderr.write("AWS_DEFAULT_REGION is not set: set it to the region of the bucket\n")
        return 2
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report, is_interrupted = Report(), False
    with ExitStack() as undo:
        trial = Trial(os.environ, report, undo)
        try:
            trial.run()
        except KeyboardInterrupt:
            is_interrupted = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        sys.stderr.write("removing …\n")
    sys.stdout.write(report.text())
    return 130 if is_interrupted else 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
