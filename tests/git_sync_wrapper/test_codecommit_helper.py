"""
CodeCommit signatures, compared with those of git-remote-codecommit.
"""

import calendar
import time

import botocore.credentials
import git_remote_codecommit
import pytest

from git_sync_wrapper import codecommit_helper
from git_sync_wrapper.logins import region_of

HOSTS = (
    "git-codecommit.{region}.amazonaws.com",
    "git-codecommit-fips.{region}.amazonaws.com",
    "vpce-0123456789abcdef0-a1b2c3d4.git-codecommit.{region}.vpce.amazonaws.com",
)


# Its newest version calls utcnow, which Python has deprecated since 3.12.
@pytest.mark.filterwarnings("ignore:datetime:DeprecationWarning:git_remote_codecommit")
@pytest.mark.parametrize("form", HOSTS)
def test_signs_like_git_remote_codecommit(form: str) -> None:
    region = "ap-southeast-2"
    host = form.format(region=region)
    given = botocore.credentials.Credentials("AKIA0123", "se+cret/")

    theirs = git_remote_codecommit.sign(host, "/v1/repos/da-gs", region, given)

    now = calendar.timegm(time.strptime(theirs.partition("Z")[0], "%Y%m%dT%H%M%S"))
    for said in (host, f"{host}:443"):
        for path in ("/v1/repos/da-gs", "v1/repos/da-gs"):
            assert theirs == codecommit_helper.sign_password(
                "se+cret/", said, path, region, now + 0.5
            )


# A host, and its region if it is one of CodeCommit.
REGIONS = """\
git-codecommit.eu-central-1.amazonaws.com:443 eu-central-1
GIT-CODECOMMIT.eu-central-1.amazonaws.com eu-central-1
git-codecommit-fips.ca-central-1.amazonaws.com ca-central-1
git-codecommit.cn-north-1.amazonaws.com.cn cn-north-1
vpce-0a-b.git-codecommit.us-east-1.vpce.amazonaws.com us-east-1
github.com
git-codecommit.eu-central-1.amazonaws.com.evil.example
git-codecommit.a.b.amazonaws.com
"""


@pytest.mark.parametrize("line", REGIONS.splitlines())
def test_recognizes_codecommit_hosts_and_their_regions(line: str) -> None:
    host, _, region = line.partition(" ")

    assert region == (region_of(host) or "")
