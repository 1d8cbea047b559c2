"""Parsing the command line, and its errors."""

import pytest

from s3_sync.publisher.cli import _place, read_arguments, run

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
def test_reads_bucket_and_prefix_from_a_url(url: str, bucket: str, prefix: str) -> None:
    for words in (["publish", "folder", url], ["rollback", url]):
        place = _place(read_arguments(words))
        assert {"AWS_BUCKET": bucket, "KEY_PATH": prefix} == place


def test_accepts_revision_and_url_in_either_order() -> None:
    for words in ("rollback abc s3://b/p", "rollback s3://b/p abc"):
        arguments = read_arguments(words.split())
        assert {"AWS_BUCKET": "b", "KEY_PATH": "p"} == _place(arguments)
        assert "abc" == arguments.revision


def test_errors_show_the_option_as_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    words = "publish . s3://dags-of-us/p --sign-key /nowhere --gate-timeout soon"

    assert 2 == run(read_arguments(words.split()), {"S3_SYNC_RETAIN_COUNT": "many"})

    said = capsys.readouterr().err
    for name in ("--gate-timeout='soon'", "S3_SYNC_RETAIN_COUNT='many'"):
        assert name in said
    assert "S3_SYNC_GATE_TIMEOUT" not in said
    assert 2 == run(read_arguments(words.replace("soon", "1m").split()), {})
    assert "--sign-key='/nowhere' " in capsys.readouterr().err


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
def test_accepts_options_at_any_position(words: str, expected: dict[str, object] | None) -> None:
    if expected is None:
        with pytest.raises(SystemExit):
            read_arguments(words.split())
        return
    found = vars(read_arguments(words.split()))
    assert expected == {name: found[name] for name in expected}
