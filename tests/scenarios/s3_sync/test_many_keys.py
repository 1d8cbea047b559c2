"""The memory for very many keys, and the limit for their number."""

import hashlib
from functools import cache

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.aws.fake_s3 import FakeS3, is_list
from tests.support.http.loopback import Answer, Request

PAGE_KEYS = 1000
BODY = b"from airflow.sdk import DAG\n"
HEADERS = {"ETag": f'"{hashlib.md5(BODY).hexdigest()}"'}


class LongS3(FakeS3):
    """A bucket of very many objects with computed names and the same content."""

    def __init__(self, keys: int) -> None:
        super().__init__()
        self.grow(keys)

    def grow(self, keys: int) -> None:
        """Set the number of objects."""
        self._keys = keys
        self._list = cache(self._listing_from)

    @property
    def listing_bytes(self) -> int:
        return sum(len(self._list(first).body) for first in range(0, self._keys, PAGE_KEYS))

    def good_answer(self, request: Request) -> Answer:
        """Return a page of the listing, or an object."""
        if is_list(request):
            return self._list(int(request.query.get("continuation-token", "0")))
        return Answer(200, HEADERS, BODY)

    def _listing_from(self, first: int) -> Answer:
        last = min(first + PAGE_KEYS, self._keys)
        contents = "".join(
            f"<Contents><Key>dags/team_{number // 100:05}/pipeline_{number:06}.py</Key>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{HEADERS['ETag'][1:-1]}&quot;</ETag><Size>{len(BODY)}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for number in range(first, last)
        )
        is_more = last < self._keys
        token = f"<NextContinuationToken>{last}</NextContinuationToken>" if is_more else ""
        page = (
            f"<ListBucketResult><IsTruncated>{str(is_more).lower()}</IsTruncated>{token}"
            f"<KeyCount>{last - first}</KeyCount>{contents}</ListBucketResult>"
        )
        return Answer(200, {"Content-Type": "application/xml"}, page.encode())


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("pages_more", [1, 10_000], ids=["one key more", "millions more"])
def test_reports_too_many_keys_without_listing_them_all(
    start: StartDaemon, pages_more: int
) -> None:
    limit = 200_000
    with LongS3(limit + 1 + (pages_more - 1) * PAGE_KEYS) as s3:
        daemon = start(s3=s3)
        failed = daemon.wait_for_event("cycle_failed", timeout_seconds=600)
        again = daemon.sync(600)

        assert ["too_many_keys"] * 2 == [failed["reason"], again["reason"]]
        assert "KEY_PATH" in failed["advice"] and str(limit) in failed["error"]
        assert len(s3.seen(is_list)) <= 3 * (limit // PAGE_KEYS + 1)
