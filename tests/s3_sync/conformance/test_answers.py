"""
The client with answers of all kinds: each ends as its row specifies.

After a success, the client sends the request again on the same connection.
"""

import pytest

from tests.s3_sync.conformance.reader import Reader
from tests.s3_sync.conformance.rows import BROKEN, ODD_BUT_WHOLE, REFUSED, WHOLE
from tests.support.aws.fake_s3 import FakeS3

ROWS = ODD_BUT_WHOLE | BROKEN | REFUSED


@pytest.mark.parametrize("what", ["list", "get"])
@pytest.mark.parametrize("name", ROWS)
def test_each_answer_ends_as_specified(s3: FakeS3, reader: Reader, name: str, what: str) -> None:
    good = reader.read(what, s3.endpoint)
    s3.forget()
    row = ROWS[name]
    s3.inject(row.fault)

    report = reader.read(what, s3.endpoint)

    assert row.ends == report.reason, report
    if row.ends == WHOLE:
        assert good.body_md5 == report.body_md5
    assert (2 if row.ends == WHOLE else row.requests) == len(s3.requests)
