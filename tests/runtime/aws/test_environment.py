"""
The AWS configuration that the environment alone determines, compared with botocore's.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import botocore.session
import pytest

from sidecar_runtime.aws import chain, early
from sidecar_runtime.aws.credentials import Chain
from sidecar_runtime.aws.environment import answer
from sidecar_runtime.fence import Fence
from tests.runtime.aws.fake_chain import FakeChain

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s3cr3t/+="}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("AWS_") or "CA_BUNDLE" in name]:
        monkeypatch.delenv(name)
    return tmp_path


def given(monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str]) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"AWS_SESSION_TOKEN": "t0ken"},
        {"AWS_SESSION_TOKEN": ""},
        {"AWS_DEFAULT_REGION": "eu-central-1"},
        {"AWS_ENDPOINT_URL": "http://all.example", "AWS_BUCKET": "dags"},
        {"AWS_ENDPOINT_URL": "http://all.example", "AWS_ENDPOINT_URL_S3": "http://s3.example"},
        {"AWS_CA_BUNDLE": "/ca.pem", "REQUESTS_CA_BUNDLE": "/other.pem"},
        {"AWS_CA_BUNDLE": "", "REQUESTS_CA_BUNDLE": "/other.pem"},
        {"AWS_EC2_METADATA_DISABLED": "true"},
    ],
    ids=" ".join,
)
def test_gives_the_same_answer_as_botocore(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, str]
) -> None:
    given(monkeypatch, KEYS | more)
    wanted = chain.resolve(botocore.session.Session())

    found = answer(KEYS | more)

    assert found is not None
    assert Path(found.pop("ca_fallback")).is_file() and wanted.pop("ca_fallback")
    assert wanted == found


def test_aws_region_takes_precedence_over_aws_default_region() -> None:
    """botocore reads only the older name; :func:`chain.answer` adds the newer one."""
    found = answer({**KEYS, "AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-east-1"})
    assert found and "eu-west-1" == found["region"]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE"},
        KEYS | {"AWS_ACCESS_KEY_ID": ""},
        KEYS | {"AWS_PROFILE": "other"},
        KEYS | {"AWS_CONFIG_FILE": "/config"},
        KEYS | {"AWS_SECURITY_TOKEN": "t0ken"},
        KEYS | {"AWS_CREDENTIAL_EXPIRATION": "2030-01-01T00:00:00Z"},
        KEYS | {"AWS_USE_FIPS_ENDPOINT": "true"},
    ],
    ids=" ".join,
)
def test_returns_no_answer_if_only_botocore_can_tell(environ: dict[str, str]) -> None:
    assert answer(environ) is None


def test_returns_no_answer_if_the_home_folder_contains_aws_files(home: Path) -> None:
    assert answer(KEYS)
    (home / ".aws").mkdir()
    assert answer(KEYS) is None


def test_keys_in_the_environment_start_no_process(
    monkeypatch: pytest.MonkeyPatch, child: FakeChain
) -> None:
    child.fails()
    given(monkeypatch, KEYS)

    early.ask(is_anonymous=False)

    assert early._asked is None
    assert "AKIDEXAMPLE" == Chain().current(Fence())[0].access_key
    assert [] == child.calls
