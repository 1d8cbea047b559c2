"""
The scripted servers work with the real servers' standard clients: boto3 and botocore.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support.aws.fake_aws import IDENTITY_ARN, FakeImds, FakePodIdentity, FakeSts
from tests.support.aws.fake_s3 import ACCESS_KEY, SECRET_KEY, FakeS3, is_get, is_list
from tests.support.aws.s3_refusals import Identity
from tests.support.http.faults import chunked, close_silently

ODD_KEYS = (
    "plain.py",
    "é ü+%&=;.py",
    "new\nline",
    "//x",
    "~t*'()!",
    "日本",
    "\x01control",
    "a<b>&c",
)


@pytest.fixture
def s3() -> Iterator[FakeS3]:
    """
    A server that checks signatures.
    """
    with FakeS3() as server:
        server.identities = {ACCESS_KEY: Identity(SECRET_KEY)}
        yield server


def client(s3: FakeS3, secret_key: str = SECRET_KEY, attempts: int = 1) -> Any:
    """
    Return a boto3 client, by default without retries.
    """
    session = boto3.session.Session(ACCESS_KEY, secret_key, None, "us-east-1")
    config = Config(retries={"total_max_attempts": attempts}, s3={"addressing_style": "path"})
    return session.client("s3", endpoint_url=s3.endpoint, config=config)


def test_boto3_lists_in_pages_and_reads_unusual_keys(s3: FakeS3) -> None:
    for key in ODD_KEYS:
        s3.put(f"dags/{key}", key.encode())
    s3.page_size = 3
    boto = client(s3)

    pages = boto.get_paginator("list_objects_v2").paginate(Bucket=s3.bucket, Prefix="dags/")
    listed = [found["Key"] for page in pages for found in page["Contents"]]

    assert listed == sorted(s3.objects)
    assert len(s3.seen(is_list)) == 3
    for key in ODD_KEYS:
        body = boto.get_object(Bucket=s3.bucket, Key=f"dags/{key}")["Body"].read()
        assert body == key.encode()


def test_boto3_reads_a_range_and_receives_the_error_codes_of_s3(s3: FakeS3) -> None:
    s3.put("k", b"0123456789")
    boto = client(s3)

    def refused(boto: Any, **arguments: str) -> str:
        with pytest.raises(ClientError) as caught:
            boto.get_object(**{"Bucket": s3.bucket, "Key": "k"} | arguments)
        return str(caught.value.response["Error"]["Code"])

    assert boto.get_object(Bucket=s3.bucket, Key="k", Range="bytes=2-4")["Body"].read() == b"234"
    assert refused(boto, IfMatch='"other"') == "PreconditionFailed"
    assert refused(boto, IfNoneMatch=s3.objects["k"].etag) == "304"
    assert refused(boto, Key="none") == "NoSuchKey"
    assert refused(boto, Bucket="other-bucket") == "NoSuchBucket"
    assert refused(client(s3, secret_key="wrong")) == "SignatureDoesNotMatch"


def test_boto3_retries_in_the_region_that_the_error_contains(s3: FakeS3) -> None:
    s3.region, s3.region_answer = "eu-west-1", "malformed"
    s3.put("k", b"v")

    assert client(s3).get_object(Bucket=s3.bucket, Key="k")["Body"].read() == b"v"


@pytest.mark.parametrize(("fault", "connections"), [(chunked(), 1), (close_silently(), 2)])
def test_boto3_accepts_chunked_answers_and_closed_connections(
    s3: FakeS3, fault: Any, connections: int
) -> None:
    s3.put("k", b"0123456789")
    s3.inject(fault, is_get("k"))
    boto = client(s3, attempts=2)  # the second request may meet a connection that is closing

    for _ in range(2):
        assert boto.get_object(Bucket=s3.bucket, Key="k")["Body"].read() == b"0123456789"
    assert connections == len({request.connection for request in s3.seen(is_get("k"))})


def test_botocore_obtains_credentials_from_each_fake_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("service-account-token")
    with (
        FakeSts() as sts,
        FakePodIdentity(authorization="service-account-token") as agent,
        FakeImds() as imds,
    ):
        environments = {
            "assume-role-with-web-identity": (sts, sts.environment(token_file)),
            "container-role": (agent, agent.environment(token_file)),
            "iam-role": (imds, imds.environment()),
        }
        for method, (source, environment) in environments.items():
            with monkeypatch.context() as patch:
                patch.delenv("AWS_EC2_METADATA_DISABLED")
                for name, value in environment.items():
                    patch.setenv(name, value)
                found = botocore.session.Session().get_credentials()
                assert found is not None
                frozen = found.get_frozen_credentials()

            assert method == found.method
            assert source.credentials.access_key == frozen.access_key
            assert source.credentials.secret_key == frozen.secret_key
            assert source.credentials.token == frozen.token


def test_boto3_gets_the_caller_identity_from_fake_sts() -> None:
    session = boto3.session.Session(ACCESS_KEY, SECRET_KEY, None, "us-east-1")
    with FakeSts() as sts:
        client = session.client("sts", endpoint_url=sts.endpoint)

        assert client.get_caller_identity()["Arn"] == IDENTITY_ARN
