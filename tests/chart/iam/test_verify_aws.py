"""
`make verify-aws` with moto, which enforces IAM: its report, and the removal of all resources.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.support.aws.fake_aws import FakeSts, SessionCredentials, sts_action
from tests.support.aws.moto_iam import MotoWithIam
from tests.support.http.loopback import Answer, LoopbackServer, Request

ROOT = Path(__file__).parents[3]
BUCKET = "my-airflow-bucket"
ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
MAKE = f"""#!{sys.executable}
import boto3, sys
account = sys.argv[3].partition("=")[2]
boto3.client("ecr").create_repository(
    repositoryName=account.partition("/")[2] + "/s3-sync", imageTagMutability="IMMUTABLE"
)
"""
PROGRAMS = {
    "docker": "#!/bin/sh\n",
    "make": MAKE,
    "git": '#!/bin/sh\n[ "$1" = ls-remote ] && [ "${2%%:*}" = codecommit ]\n',
}


class Eks(LoopbackServer):
    """
    An EKS API with one cluster and its issuer; moto with IAM refuses requests to EKS.
    """

    def __init__(self, **identity: object) -> None:
        super().__init__()
        self._cluster = {"name": "my-cluster", **identity}

    def good_answer(self, request: Request) -> Answer:
        return Answer(200, {}, json.dumps({"cluster": self._cluster}).encode())

    def settings(self) -> dict[str, str]:
        return {"CLUSTER": "my-cluster", "AWS_ENDPOINT_URL_EKS": self.endpoint}


class Account:
    """
    An account with one bucket, and a folder of fake programs.
    """

    def __init__(self, owner: dict[str, str], user: dict[str, str], programs: Path) -> None:
        self._owner = owner
        self.user = user
        self.programs = programs
        self.before = self.has()

    def add(self, program: str, text: str) -> None:
        """
        Put a program on PATH.
        """
        (self.programs / program).write_text(text)
        (self.programs / program).chmod(0o755)

    def verify(self, **settings: str) -> subprocess.CompletedProcess[str]:
        """
        Run the command until it exits.
        """
        return subprocess.run(
            [sys.executable, ROOT / "scripts/verify_aws.py"],
            env={
                **self.user,
                "PATH": f"{self.programs}:/usr/bin:/bin",
                "HOME": str(self.programs.parent),
                "BUCKET": BUCKET,
                **settings,
            },
            capture_output=True,
            text=True,
            start_new_session=True,
        )

    def has(self) -> dict[str, list[str]]:
        """
        Return the resources of the account, read with all permissions.
        """

        def aws(service: str) -> Any:
            return boto3.client(  # type: ignore[call-overload]
                service,
                endpoint_url=self._owner["AWS_ENDPOINT_URL"],
                aws_access_key_id=self._owner["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=self._owner["AWS_SECRET_ACCESS_KEY"],
                region_name=self._owner["AWS_DEFAULT_REGION"],
                config=Config(proxies={}, s3={"addressing_style": "path"}),
            )

        versions = aws("s3").list_object_versions(Bucket=BUCKET)
        return {
            "keys": [one["Key"] for one in versions.get("Versions", [])],
            "markers": [one["Key"] for one in versions.get("DeleteMarkers", [])],
            "roles": sorted(one["RoleName"] for one in aws("iam").list_roles()["Roles"]),
            "images": [
                one["repositoryName"] for one in aws("ecr").describe_repositories()["repositories"]
            ],
        }


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoWithIam]:
    with MotoWithIam(tmp_path_factory.mktemp("iam")) as moto:
        yield moto


@pytest.fixture(scope="module")
def session(moto: MotoWithIam) -> SessionCredentials:
    """
    Credentials of a role with all permissions.
    """
    iam, sts = moto.aws("iam"), moto.aws("sts")
    role = iam.create_role(RoleName="sandbox", AssumeRolePolicyDocument=json.dumps(ALL))["Role"]
    iam.put_role_policy(RoleName="sandbox", PolicyName="all", PolicyDocument=json.dumps(ALL))
    made = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="verify")["Credentials"]
    return SessionCredentials(
        made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"], made["Expiration"]
    )


@pytest.fixture(scope="module")
def users(moto: MotoWithIam, session: SessionCredentials) -> dict[str, dict[str, str]]:
    """
    A user with all permissions, and one that must not delete roles.
    """
    deny = {"Effect": "Deny", "Action": "iam:DeleteRole", "Resource": "*"}
    s3 = moto.aws("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=BUCKET, Key="dags/a.py", Body=b"x = 1\n")
    found = {
        "all": moto.user_with(ALL),
        "keeper": moto.user_with({**ALL, "Statement": [*ALL["Statement"], deny]}),
    }
    moto.enforce()
    return found


@pytest.fixture
def account(users: dict[str, dict[str, str]], tmp_path: Path, request: Any) -> Account:
    programs = tmp_path / "bin"
    programs.mkdir()
    account = Account(users["all"], users[getattr(request, "param", "all")], programs)
    for name, text in PROGRAMS.items():
        account.add(name, text)
    return account


def results(report: str) -> dict[str, str]:
    rows = [line.split("|") for line in report.splitlines() if line.startswith("|")]
    return {row[1].strip(): row[2].strip() for row in rows[2:]}


def test_runs_every_step_and_removes_all_resources(account: Account) -> None:
    done = account.verify()

    assert {
        "identity": "ok",
        "conditional writes": "ok",
        "release": "ok",
        "kms": "ok",
        "role": "ok",
        "irsa": "skipped",
        "ecr": "ok",
        "codecommit": "ok",
    } == results(done.stdout), done
    assert 0 == done.returncode
    assert "All resources were removed." in done.stdout
    assert "123456789012" not in done.stdout
    assert account.before == account.has()


@pytest.mark.parametrize(("step", "number"), [("make", "INT"), ("git", "TERM")])
def test_removes_all_resources_after_a_signal(account: Account, step: str, number: str) -> None:
    (account.programs / step).rename(account.programs / "real")
    # Other commands run git too: then the fake git fails, and no signal is sent.
    account.add(
        step,
        f'#!/bin/sh\n"$(dirname "$0")/real" "$@" || exit\nkill -{number} $PPID\nexec sleep 99\n',
    )

    done = account.verify()

    assert 130 == done.returncode, done
    assert "All resources were removed." in done.stdout
    assert account.before == account.has()


@pytest.mark.parametrize("account", ["keeper"], indirect=True)
def test_reports_failed_steps_and_leftovers_and_runs_the_other_steps(account: Account) -> None:
    account.add("kubectl", "#!/bin/sh\n")
    account.add("make", "#!/bin/sh\necho no such thing >&2\nexit 3\n")

    with Eks() as eks:  # a cluster that is still being created
        done = account.verify(**eks.settings())

    found = results(done.stdout)
    assert ["irsa", "ecr"] == [one for one in found if found[one] == "FAILED"]
    assert "the cluster my-cluster has no OIDC issuer" in done.stdout
    assert "make exited with 3: no such thing" in done.stdout
    assert "ok" == found["codecommit"]
    assert 1 == done.returncode
    (role,) = {*account.has()["roles"]} - {*account.before["roles"]}
    assert f"Not removed: role {role}: " in done.stdout
    assert {**account.before, "roles": sorted([role, *account.before["roles"]])} == account.has()


def test_irsa_step_uses_the_token_of_a_pod_not_the_role_of_the_profile(
    account: Account, session: SessionCredentials
) -> None:
    profiles = account.programs / "profiles"
    profiles.write_text(
        """[user]
aws_access_key_id = x
aws_secret_access_key = x
[sandbox]
role_arn = arn:aws:iam::123456789012:role/sandbox
source_profile = user
"""
    )
    account.add("kubectl", "#!/bin/sh\necho of-the-pod\n")
    with (
        Eks(identity={"oidc": {"issuer": "https://oidc.example.com/id/1"}}) as eks,
        FakeSts(session) as sts,
    ):
        done = account.verify(
            AWS_PROFILE="sandbox",
            AWS_ACCESS_KEY_ID="",
            AWS_SECRET_ACCESS_KEY="",
            AWS_SHARED_CREDENTIALS_FILE=str(profiles),
            AWS_ENDPOINT_URL_STS=sts.endpoint,
            **eks.settings(),
        )

    assert "ok" == results(done.stdout)["irsa"], done.stdout
    assert "AssumeRoleWithWebIdentity" in [sts_action(request) for request in sts.seen()]
    assert account.before == account.has()


def test_removes_all_resources_with_a_mistyped_bucket_and_without_git(account: Account) -> None:
    (account.programs / "git").unlink()

    done = account.verify(BUCKET="my-airflow-bukcet", PATH=str(account.programs))

    found = results(done.stdout)
    assert {"ok", "FAILED", "skipped"} == {*found.values()}
    assert ["conditional writes", "release", "kms", "codecommit"] == [
        step for step, result in found.items() if result == "FAILED"
    ]
    assert "git cannot be started: No such file or directory" in done.stdout
    assert "skipped" == found["role"]
    assert "All resources were removed." in done.stdout
    assert account.before == account.has()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"BUCKET": ""}, "BUCKET="),
        ({"BUCKET": "s3://mine"}, "BUCKET=s3://mine"),
        ({"AWS_DEFAULT_REGION": ""}, "AWS_DEFAULT_REGION is not set"),
        ({"AWS_PROFILE": "mistyped"}, "mistyped"),
    ],
)
def test_reports_a_wrong_setting_and_exits_with_2(
    account: Account, settings: dict[str, str], says: str
) -> None:
    done = account.verify(**settings)

    assert (2, "") == (done.returncode, done.stdout)
    assert says in done.stderr
