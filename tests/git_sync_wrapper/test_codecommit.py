"""
CodeCommit signatures, compared with those of the two programs that AWS provides.
"""

import calendar
import random
import string
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import botocore.credentials
import git_remote_codecommit
import pytest

from git_sync_wrapper import codecommit
from sidecar_runtime.aws.credentials import Credentials

CASES = 100
REGIONS = ("us-east-1", "eu-central-1", "ap-southeast-2", "us-gov-west-1", "cn-north-1")
HOSTS = (
    "git-codecommit.{region}.amazonaws.com",
    "git-codecommit-fips.{region}.amazonaws.com",
    "vpce-0123456789abcdef0-a1b2c3d4.git-codecommit.{region}.vpce.amazonaws.com",
)


@dataclass
class Case:
    credentials: Credentials
    region: str
    host: str
    repository: str

    @property
    def path(self) -> str:
        return f"/v1/repos/{self.repository}"

    @property
    def botocore(self) -> botocore.credentials.Credentials:
        given = self.credentials
        return botocore.credentials.Credentials(given.access_key, given.secret_key, given.token)


def cases() -> list[Case]:
    chance = random.Random(8)

    def text(letters: str, low: int, high: int) -> str:
        return "".join(chance.choices(letters, k=chance.randint(low, high)))

    found = []
    for _ in range(CASES):
        region = chance.choice(REGIONS)
        host = chance.choice(HOSTS).format(region=region)
        credentials = Credentials(
            access_key=chance.choice(["AKIA", "ASIA"]) + text(string.ascii_uppercase, 16, 16),
            secret_key=text(string.ascii_letters + string.digits + "+/", 40, 40),
            token=chance.choice([None, text(string.ascii_letters + "+/=", 300, 1200)]),
        )
        name = text(string.ascii_letters + string.digits + "._-", 1, 100)
        end = ".cn" if region.startswith("cn-") else ""
        found.append(Case(credentials, region, host + end, name))
    return found


def moment_of(password: str) -> float:
    return calendar.timegm(time.strptime(password.partition("Z")[0], "%Y%m%dT%H%M%S"))


def user_of(case: Case) -> str:
    return codecommit.username(case.credentials.access_key, case.credentials.token)


def ours(case: Case, now: float, **changes: Any) -> str:
    given = {"host": case.host, "path": case.path, "region": case.region} | changes
    return codecommit.password(case.credentials.secret_key, now=now, **given)


# Its newest version calls utcnow, which Python has deprecated since 3.12.
@pytest.mark.filterwarnings("ignore:datetime:DeprecationWarning:git_remote_codecommit")
def test_signs_like_git_remote_codecommit(monkeypatch: pytest.MonkeyPatch) -> None:
    for case in cases():
        monkeypatch.setenv("CODE_COMMIT_ENDPOINT", case.host)
        theirs = git_remote_codecommit.sign(case.host, case.path, case.region, case.botocore)
        assert theirs == ours(case, moment_of(theirs)), case

        url = git_remote_codecommit.git_url(case.repository, "v1", case.region, case.botocore)
        username = url.removeprefix("https://").partition(":")[0]
        assert username == quote(user_of(case), safe="")


def test_the_signature_ignores_a_leading_slash_and_a_port() -> None:
    case = cases()[0]
    expected = ours(case, 1_700_000_000.5)

    assert expected == ours(case, 1_700_000_000, path=case.path.lstrip("/"))
    assert expected == ours(case, 1_700_000_000, host=f"{case.host}:443")


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("git-codecommit.eu-central-1.amazonaws.com", "eu-central-1"),
        ("git-codecommit.eu-central-1.amazonaws.com:443", "eu-central-1"),
        ("GIT-CODECOMMIT.eu-central-1.amazonaws.com", "eu-central-1"),
        ("git-codecommit-fips.ca-central-1.amazonaws.com", "ca-central-1"),
        ("git-codecommit.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("vpce-0a-b.git-codecommit.us-east-1.vpce.amazonaws.com", "us-east-1"),
        ("github.com", None),
        ("git-codecommit.eu-central-1.amazonaws.com.evil.example", None),
        ("evil-git-codecommit.eu-central-1.amazonaws.com", None),
        ("git-codecommit.a.b.amazonaws.com", None),
        ("", None),
    ],
)
def test_recognizes_codecommit_hosts_and_their_regions(host: str, region: str | None) -> None:
    assert region == codecommit.region_of(host)
