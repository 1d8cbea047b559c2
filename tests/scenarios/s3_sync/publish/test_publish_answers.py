"""Publishers and the answers of odd servers, proxies and policies."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from tests.support.aws.writable_s3 import WritableS3, forbid_missing, is_write, lose_answer
from tests.support.http.loopback import Exchange
from tests.support.s3_sync.publishing import Publishing, Ran, read_release, write_files

A, B = {"a.py": b"a"}, {"a.py": b"b"}


class Site:
    """A bucket, and a publisher."""

    def __init__(self, s3: WritableS3, folder: Path) -> None:
        self.s3 = s3
        self._folder = folder
        self.publisher = Publishing(s3, s3.bucket, folder / "home")

    def publish(self, files: dict[str, bytes]) -> Ran:
        folder = write_files(self._folder / "dags", files)
        return self.publisher.run("publish", folder, "--output", "json")

    def current(self) -> dict[str, bytes]:
        return read_release({key: stored.body for key, stored in self.s3.objects.items()})


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with WritableS3() as s3:
        yield Site(s3, tmp_path)


@pytest.mark.parametrize("conditions", ["ignored", "refused"])
def test_a_store_without_conditional_writes_is_refused_and_keeps_its_release(
    site: Site, conditions: Literal["ignored", "refused"]
) -> None:
    assert 0 == site.publish(A).code
    site.s3.conditions = conditions

    ran = site.publish(B)

    assert (3, "store_unsupported") == (ran.code, ran.facts()["reason"])
    assert A == site.current()


@pytest.mark.parametrize("part", ["current.json", ".json.gz", ".zip"])
def test_a_lost_answer_to_a_write_is_no_conflict(site: Site, part: str) -> None:
    assert 0 == site.publish(A).code
    site.s3.inject(lose_answer, is_write(part), times=1)

    ran = site.publish(B)

    assert 0 == ran.code, ran
    assert B == site.current()


def test_a_role_that_may_list_only_its_prefix_can_publish(site: Site) -> None:
    """S3 answers 403 instead of 404 then."""
    site.s3.inject(forbid_missing)

    assert [0, 0] == [site.publish(A).code, site.publish(B).code]
    assert B == site.current()


def test_a_proxy_that_weakens_etags_is_no_other_publisher(site: Site) -> None:
    def weaken(exchange: Exchange) -> None:
        answer = exchange.good()
        etag = answer.headers.get("ETag", "")
        exchange.send(replace(answer, headers={**answer.headers, "ETag": f"W/{etag}"}))

    site.s3.inject(weaken, lambda request: request.method == "GET")

    assert [0, 0] == [site.publish(A).code, site.publish(B).code]
    assert B == site.current()


def test_compares_two_urls_without_a_bucket_in_the_environment(site: Site) -> None:
    assert 0 == site.publish(A).code
    del site.publisher.environment["AWS_BUCKET"], site.publisher.environment["KEY_PATH"]
    other = f"s3://{site.s3.bucket}/prd"
    site.publisher.succeed("promote", site.publisher.url, other)

    facts = site.publisher.succeed("diff", site.publisher.url, other)

    assert {"added": [], "changed": [], "removed": []} == facts["changes"]
