"""A role that lacks a permission gets its name, and the statement that grants it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.aws.fake_s3 import error
from tests.support.aws.writable_s3 import WritableS3
from tests.support.http.loopback import Match
from tests.support.s3_sync.publishing import PREFIX, Publishing, write_files
from tests.support.s3_sync.releases import make_release

OLD, NEW = {"a.py": b"old"}, {"a.py": b"new"}
PRUNE = ["prune-releases", "--keep-count", "0", "--keep-for", "0"]


@pytest.fixture
def bucket() -> Iterator[WritableS3]:
    with WritableS3() as bucket:
        at = datetime.now(UTC) - timedelta(days=40)
        for files in ({"a.py": b"older"}, OLD):
            bucket.put_all(make_release(files).objects(), PREFIX, at=at)
        yield bucket


def of(method: str, part: str = "") -> Match:
    return lambda request: request.method == method and part in request.path


CASES = {
    "put": (["publish", "dags"], of("PUT"), "access_denied_put", "s3:PutObject"),
    "get": (["publish", "dags"], of("GET", "current"), "access_denied_get", "s3:GetObject"),
    "list": (
        ["releases"],
        lambda request: "list-type" in request.query,
        "access_denied_list",
        "s3:ListBucket",
    ),
    "delete": (PRUNE, of("DELETE"), "access_denied_delete", "s3:DeleteObject"),
}


@pytest.mark.parametrize("case", CASES)
def test_names_the_missing_permission_and_its_resource(
    bucket: WritableS3, tmp_path: Path, case: str
) -> None:
    words, match, reason, action = CASES[case]
    folder = write_files(tmp_path / "dags", NEW)
    arguments = [str(folder) if word == "dags" else word for word in words]
    before = dict(bucket.objects)
    bucket.inject(error(403, "AccessDenied"), match)

    ran = Publishing(bucket, bucket.bucket, tmp_path).run(*arguments, "--output", "json")

    assert (3, reason) == (ran.code, ran.facts()["reason"]), ran
    assert action in ran.err and f"arn:aws:s3:::{bucket.bucket}" in ran.err
    assert before.keys() == bucket.objects.keys()
