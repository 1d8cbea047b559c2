"""
Try everything that needs AWS in a real account, and print one report to paste.

    make verify-aws BUCKET=my-airflow-bucket

What it makes has one name, `airflow-sidecars-verify-` and eight digits: a prefix in the bucket, a
role, a repository in ECR and one in CodeCommit. All of it is removed at the end, after a failure
and after Ctrl-C, too; what could not be removed is in the report. It reads no other key of the
bucket, and changes nothing that it has not made.

The environment says the rest: AWS's own variables, KMS_KEY (an id or ARN; default: aws/s3), and for
IRSA CLUSTER, NAMESPACE and SERVICE_ACCOUNT of a service account that is there.

Exit 0 when nothing failed and nothing is left; 1 otherwise; 2 for a setting; 130 after Ctrl-C.
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
# A new role may be unknown to STS and S3 for some seconds.
PATIENCE_SECONDS = 60
GONE = {
    "NoSuchBucket",
    "NoSuchEntity",
    "RepositoryDoesNotExistException",
    "RepositoryNotFoundException",
}
# A role of a profile would come before a pod's token, as in no pod.
NOBODY = {
    "AWS_ACCESS_KEY_ID": None,
    "AWS_SECRET_ACCESS_KEY": None,
    "AWS_SESSION_TOKEN": None,
    "AWS_PROFILE": None,
    "AWS_DEFAULT_PROFILE": None,
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
# Of CodeCommit, which takes no new customers.
CLOSED = {"OperationNotPermittedException", "AccessDeniedException"}


class NotTried(Exception):
    """
    Something is missing that is no fault; the text says what.
    """


class Failed(Exception):
    """
    AWS, or a program of ours, did something else than it should.
    """


@dataclass
class Report:
    """
    What was tried, and what is left over.
    """

    account: str = ""
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.left and all(result != "FAILED" for _, result, _ in self.rows)

    def text(self) -> str:
        """
        Return the table, without the number of the account.
        """
        lines = ["| what | result | |", "|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        lines += [f"\nNot removed: {one}" for one in self.left] or ["\nEverything is removed."]
        text = "\n".join(lines) + "\n"
        return text.replace(self.account, "<account>") if self.account else text


class Trial:
    """
    One run.

    Args:
        environ: The settings.
        report: Gets a row for each step.
        undo: Removes what the steps make.
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
        Who runs this.
        """
        said = self.session.client("sts").get_caller_identity()
        self.report.account, self.caller = said["Account"], said["Arn"]
        return f"{said['Arn'].split('/')[0]}, {self.region}"

    def conditional_writes(self) -> str:
        """
        A key that is there, or has changed, is not overwritten: two publishers rely on it.
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
        s3-sync publishes a release, and brings it.
        """
        prefix = f"{self.name}/dags"
        self._program(
            "s3-sync", "publish", str(self.folder / "dags"), f"s3://{self.bucket}/{prefix}"
        )
        self._bring(prefix, {"S3_SYNC_SOURCE": "release"})
        self._has_release = True
        return "published, and brought by a one-shot"

    def kms(self) -> str:
        """
        s3-sync brings an object that KMS has encrypted.
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
        return "with KMS_KEY" if key else "with aws/s3; KMS_KEY names another one"

    def role(self) -> str:
        """
        The policy s3-sync.json is enough for s3-sync, and no more than that.
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
        return "reads its prefix, writes nothing, reads nothing else"

    def irsa(self) -> str:
        """
        The token of a service account is enough for s3-sync, as in a pod.
        """
        cluster = self.environ.get("CLUSTER")
        if not cluster:
            raise NotTried("CLUSTER names no EKS cluster")
        if not shutil.which("kubectl"):
            raise NotTried("kubectl is not on PATH")
        self._need_release()
        known = self.session.client("eks").describe_cluster(name=cluster)["cluster"]
        try:
            issuer = known["identity"]["oidc"]["issuer"].removeprefix("https://")
        except KeyError:  # it is being made, or only registered
            raise Failed(f"the cluster {cluster} has no issuer of tokens") from None
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
        return "by the token that a pod would have"

    def ecr(self) -> str:
        """
        `make push` makes a repository and pushes.
        """
        try:
            _run("scripts/container-tool", "build")
        except Failed:
            raise NotTried("no container tool works here") from None
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
            raise Failed("its tags are mutable")
        return "s3-sync, tags immutable"

    def codecommit(self) -> str:
        """
        git reads a repository of CodeCommit by the caller's credentials.
        """
        client = self.session.client("codecommit")
        self._remove_later(
            f"CodeCommit repository {self.name}",
            lambda: client.delete_repository(repositoryName=self.name),
        )
        try:
            client.create_repository(repositoryName=self.name)
        except ClientError as error:
            if error.response["Error"]["Code"] in CLOSED:
                raise NotTried(error.response["Error"]["Message"]) from None
            raise
        remote = f"codecommit::{self.region}://{self.name}"
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # with git-remote-codecommit
        _run("git", "ls-remote", remote, variables={**os.environ, "PATH": path})
        return "git ls-remote"

    STEPS = (identity, conditional_writes, release, kms, role, irsa, ecr, codecommit)

    def run(self) -> None:
        """
        Take every step; a step that fails keeps no other one from being taken.
        """
        for step in self.STEPS:
            title = step.__name__.replace("_", " ")
            sys.stderr.write(f"{title} …\n")
            try:
                row = (title, "ok", step(self))
            except NotTried as reason:
                row = (title, "not tried", str(reason))
            except (BotoCoreError, ClientError, Failed) as error:
                row = (title, "FAILED", " ".join(str(error).split()))
            except Exception as error:  # noqa: BLE001 - a report in any case
                row = (title, "FAILED", " ".join(repr(error).split()))
            self.report.rows.append(row)
            if row[:2] == ("identity", "FAILED"):
                return

    # What steps share

    def _remove_later(self, what: str, remove: Callable[[], object]) -> None:
        """
        Have something removed at the end; said before it is made, so that no moment is left out.
        """

        def removed() -> None:
            try:
                remove()
            except Exception as error:  # noqa: BLE001 - the others must not stay for it
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
        Make a role with the policy for s3-sync; return its ARN.
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
        Run s3-sync once into an empty folder; the one DAG must be there.
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
        if (target / "verified.py").read_bytes() != DAG:
            raise Failed("other bytes came back")

    def _need_release(self) -> None:
        if not self._has_release:
            raise NotTried("it needs a release")

    def _bring_release_as(self, given: Mapping[str, str]) -> None:
        """
        Bring the release with these credentials alone.
        """
        self._bring(f"{self.name}/dags", {"S3_SYNC_SOURCE": "release", **NOBODY, **given})

    def _program(
        self, name: str, *arguments: str, variables: Mapping[str, str | None] | None = None
    ) -> None:
        merged = {"AWS_DEFAULT_REGION": self.region, **os.environ, **(variables or {})}
        _run(str(BIN / name), *arguments, variables=merged)

    def _patiently(self, attempt: Callable[[], Any]) -> Any:
        """
        Try until IAM knows the new role everywhere.
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
    Expect that AWS refuses what a `with` block does.
    """
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] != code:
            raise
    else:
        raise Failed(f"was allowed, where {code} was expected")


def _run(*command: str, variables: Mapping[str, str | None] | None = None) -> str:
    """
    Run a program and return its output.

    Raises:
        Failed: It cannot be run, or failed; with its last words.
    """
    given = {k: v for k, v in (variables or os.environ).items() if v is not None}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=given, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise Failed(f"{Path(command[0]).name} cannot be run: {error.strerror}") from None
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or [""]
        raise Failed(f"{Path(command[0]).name} ended with {done.returncode}: {said[-1][:400]}")
    return done.stdout


def main() -> int:
    """
    Run all steps, remove what they made, and print the report.
    """
    bucket = os.environ.get("BUCKET", "")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
        sys.stderr.write(f"BUCKET={bucket}: write the name of a bucket that is yours\n")
        return 2
    try:
        region = boto3.Session().region_name
    except BotoCoreError as error:
        sys.stderr.write(f"AWS_PROFILE: {error}\n")
        return 2
    if not region:
        sys.stderr.write("AWS_DEFAULT_REGION is not set: write the region of the bucket\n")
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
