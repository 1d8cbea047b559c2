"""Tests of what a URL on the command line stands for."""

import pytest

from s3_sync.publisher.cli import _place, read_arguments

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
    for words in (["publish", "folder", url], ["rollback", url]):
        place = _place(read_arguments(words))
        assert {"AWS_BUCKET": bucket, "KEY_PATH": prefix} == place


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("publish dags --gate syntax s3://b/p", {"folder": "dags", "url": "s3://b/p"}),
        ("publish --gate syntax dags s3://b/p", {"folder": "dags", "url": "s3://b/p"}),
        ("releases --limit 3 s3://b/p", {"url": "s3://b/p"}),
        ("prune-releases --keep a --keep b s3://b/p", {"keep": ["a", "b"], "url": "s3://b/p"}),
        ("rollback --dry-run abc s3://b/p", {"revision": "abc", "url": "s3://b/p"}),
        ("rollback abc --dry-run s3://b/p", {"revision": "abc", "url": "s3://b/p"}),
        ("pin abc --output json s3://b/p", {"revision": "abc", "url": "s3://b/p"}),
        ("publish dags --gate syntax s3://b/p more", None),
        ("publish dags --what s3://b/p", None),
    ],
)
def test_options_may_stand_anywhere(words: str, expected: dict[str, object] | None) -> None:
    if expected is None:
        with pytest.raises(SystemExit):
            read_arguments(words.split())
        return
    found = vars(read_arguments(words.split()))
    assert expected == {name: found[name] for name in expected}
