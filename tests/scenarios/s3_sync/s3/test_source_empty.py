"""
A prefix without a file to sync: what is there is counted. And one with too many keys.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.s3_sync.listing.answers import contents, page
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.aws.fake_s3 import FakeS3, is_list
from tests.support.http.loopback import Answer, Exchange
from tests.support.s3_sync.scripted import FILES, published


@pytest.mark.parametrize(
    ("keys", "settings", "said"),
    [
        (["dags/a//b.py", "dags/../c.py"], {}, "2 skipped (unsafe_path)"),
        (["dags/a.txt"], {"S3_SYNC_INCLUDE": "*.py"}, "1 left out by S3_SYNC_INCLUDE"),
        (
            ["dags/a.py", "dags/.s3-sync/x"],
            {"S3_SYNC_EXCLUDE": "a*"},
            "1 skipped (reserved), 1 le",
        ),
        (
            ["dags/", "/dags/a.py", "Dags/a.py"],
            {},
            "to sync: it has no keys, or only folders",
        ),
        ([f"dags/bundles/{'0' * 64}.zip"], {}, "1 skipped (release)"),
    ],
)
def test_counts_what_is_there(
    s3: FakeS3,
    start: StartDaemon,
    keys: list[str],
    settings: Mapping[str, str],
    said: str,
) -> None:
    s3.objects.clear()
    s3.put_each(keys, b"x = 1\n")

    failed = start(settings).wait_for_event("cycle_failed")

    assert ("source_empty", True) == (failed["reason"], said in failed["error"]), failed
    # Whoever follows the advice for a filter must not lose what is published.
    is_filtered = "left out" in said or "1 le" in said
    hint = "Correct S3_SYNC_" if is_filtered else "S3_SYNC_SOURCE=release"
    assert hint in failed["advice"]
    assert is_filtered != ("S3_SYNC_ALLOW_EMPTY" in failed["advice"])


def test_more_keys_than_fit_are_one_clear_error(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    """200,000, whether the filters leave them out or not."""
    daemon = start({"S3_SYNC_EXCLUDE": "many/*"}).until_synced()
    numbers = itertools.count()

    def thousand(exchange: Exchange) -> None:
        body = page(
            *(contents(f"dags/many/{n:06}") for n in itertools.islice(numbers, 1000)),
            token="more",
        )
        exchange.send(Answer(200, {"Content-Type": "application/xml"}, body))

    s3.inject(thousand, is_list)

    failed = daemon.sync()
    assert "too_many_keys" == failed["reason"]
    assert "more than 200000 keys" in failed["error"]
    assert 201_000 == next(numbers)
    assert FILES == published(target)
