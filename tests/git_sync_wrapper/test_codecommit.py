"""
CodeCommit signatures, compared with those of git-remote-codecommit.
"""

import calendar
import random
import string
import time
from urllib.parse import quote

import botocore.credentials
import git_remote_codecommit
import pytest

from git_sync_wrapper import codecommit

CASES = 100
REGIONS = ("us-east-1", "eu-central-1", "ap-southeast-2", "us-gov-west-1", "cn-north-1")
HOSTS = (
    "git-codecommit.{region}.amazonaws.com",
    "git-codecommit-fips.{region}.amazonaws.com",
    "vpce-0123456789abcdef0-a1b2c3d4.git-codecommit.{region}.vpce.amazonaws.com",
)


# Its newest version calls utcnow, which Python has deprecated since 3.12.
@pytest.mark.filterwarnings("ignore:datetime:DeprecationWarning:git_remote_codecommit")
def test_signs_like_git_remote_codecommit(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(8)

    def text(letters: str, low: int, high: int) -> str:
        return "".join(chance.choices(letters, k=chance.randint(low, high)))

    for _ in range(CASES):
        region = chance.choice(REGIONS)
        host = chance.choice(HOSTS).format(region=region)
        host += ".cn" if region.startswith("cn-") else ""
        key = chance.choice(["AKIA", "ASIA"]) + text(string.ascii_uppercase, 16, 16)
        secret = text(string.ascii_letters + string.digits + "+/", 40, 40)
        token = chance.choice([None, text(string.ascii_letters + "+/=", 300, 1200)])
        name = text(string.ascii_letters + string.digits + "._-", 1, 100)
        monkeypatch.setenv("CODE_COMMIT_ENDPOINT", host)
        given = botocore.credentials.Credentials(key, secret, token)

        theirs = git_remote_codecommit.sign(host, f"/v1/repos/{name}", region, given)
        url = git_remote_codecommit.git_url(name, "v1", region, given)

        now = calendar.timegm(time.strptime(theirs.partition("Z")[0], "%Y%m%dT%H%M%S"))
        for said in (host, f"{host}:443"):
            for path in (f"/v1/repos/{name}", f"v1/repos/{name}"):
                assert theirs == codecommit.password(secret, said, path, region, now + 0.5)
        username = url.removeprefix("https://").partition(":")[0]
        assert username == quote(codecommit.username(key, token), safe="")


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("git-codecommit.eu-central-1.amazonaws.com:443", "eu-central-1"),
        ("GIT-CODECOMMIT.eu-central-1.amazonaws.com", "eu-central-1"),
        ("git-codecommit-fips.ca-central-1.amazonaws.com", "ca-central-1"),
        ("git-codecommit.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("vpce-0a-b.git-codecommit.us-east-1.vpce.amazonaws.com", "us-east-1"),
        ("github.com", None),
        ("git-codecommit.eu-central-1.amazonaws.com.evil.example", None),
        ("git-codecommit.a.b.amazonaws.com", None),
    ],
)
def test_recognizes_codecommit_hosts_and_their_regions(host: str, region: str | None) -> None:
    assert region == codecommit.region_of(host)
