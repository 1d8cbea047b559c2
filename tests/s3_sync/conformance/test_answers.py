"""
The client among answers of all kinds: each ends as its row says, and takes little memory.

Whatever succeeds is asked for once more, on the connection that the first answer left.
"""

import pytest

from tests.s3_sync.conformance.reader import Reader
from tests.s3_sync.conformance.rows import BROKEN, ODD_BUT_WHOLE, REFUSED, WHOLE
from tests.support.fake_s3 import FakeS3

ROWS = ODD_BUT_WHOLE | BROKEN | REFUSED

# A client that has nothing to keep; the first one loads modules.
GROWTH_LIMIT_KIB = 4 << 10


@pytest.mark.parametrize("what", ["list", "get"])
@pytest.mark.parametrize("name", ROWS)
def test_an_answer_ends_as_its_row_says(s3: FakeS3, reader: Reader, name: str, what: str) -> None:
    good = reader.read(what, s3.endpoint)
    s3.forget()
    row = ROWS[name]
    s3.inject(row.fault)

    report = reader.read(what, s3.endpoint)

    assert row.ends == report.reason, report
    if row.ends == WHOLE:
        assert good.body_md5 == report.body_md5
    assert (2 if row.ends == WHOLE else row.requests) == len(s3.requests)
    assert report.grown_kib < GROWTH_LIMIT_KIB
