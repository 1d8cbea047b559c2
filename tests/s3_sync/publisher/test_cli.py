"""Tests of what a URL on the command line stands for."""

import argparse

import pytest

from s3_sync.publisher.cli import _place, add_commands

ARN = "arn:aws:s3:eu-central-1:123456789012:accesspoint"


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://dags-of-us", "dags-of-us", ""),
        ("s3://dags-of-us/", "dags-of-us", ""),
        ("S3://dags-of-us/team a/dags", "dags-of-us", "team a/dags"),
        (f"s3://{ARN}/ours", f"{ARN}/ours", ""),
        (f"s3://{ARN}/ours/team/dags", f"{ARN}/ours", "team/dags"),
        (f"s3://{ARN}:ours/team/dags", f"{ARN}:ours", "team/dags"),
    ],
)
def test_a_url_names_bucket_and_prefix(url: str, bucket: str, prefix: str) -> None:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(dest="command"))

    for words in (["publish", "folder", url], ["rollback", url]):
        place = _place(parser.parse_args(words))
        assert {"AWS_BUCKET": bucket, "KEY_PATH": prefix} == place
