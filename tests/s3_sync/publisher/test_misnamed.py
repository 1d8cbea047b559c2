"""A manifest stored under the name of another release."""

import pytest

from s3_sync.publisher.catalog import find_release, list_releases, read_manifest, summarise
from s3_sync.publisher.cli import read_arguments
from s3_sync.publisher.commands import run
from s3_sync.publisher.progress import Progress
from s3_sync.release.names import manifest_key
from tests.s3_sync.bucket import A, B, Bucket
from tests.s3_sync.failing import failure
from tests.support.s3_sync.publishing import PREFIX
from tests.support.s3_sync.releases import make_release
from tests.support.s3_sync.signing import Key

OLD, NEW = make_release(A).revision, make_release(B).revision


@pytest.fixture(params=[None, Key()], ids=["unsigned", "signed"])
def misnamed(request: pytest.FixtureRequest, bucket: Bucket) -> Bucket:
    """Two releases; the manifest of the older one is that of the newer one, and so is valid."""
    if request.param is not None:
        bucket.store.signer, bucket.store.keys = request.param.signer, request.param.signer.keys
    bucket.publish_all(A, B)
    other = bucket.bodies()[PREFIX + manifest_key(NEW)]
    bucket.server.put(PREFIX + manifest_key(OLD), other)
    return bucket


def test_is_not_the_release_of_its_name(misnamed: Bucket) -> None:
    store = misnamed.store

    assert not find_release(store, OLD).is_whole
    assert read_manifest(store, OLD) is None
    summaries = {e.revision: e.summary for e in summarise(store, list_releases(store))}
    assert summaries[OLD] is None and summaries[NEW] is not None


@pytest.mark.parametrize("words", [["diff", OLD, "current"], ["pin", OLD], ["rollback", OLD]])
def test_commands_refuse_it(bucket: Bucket, misnamed: Bucket, words: list[str]) -> None:
    arguments = read_arguments([*words, "s3://dags-bucket/dags"])

    found = failure(run, bucket.settings, arguments, {}, Progress())

    assert "release_incomplete" == found.reason


def test_publishing_the_content_again_repairs_it(misnamed: Bucket) -> None:
    misnamed.publish(A)

    assert A == misnamed.current()
    assert find_release(misnamed.store, OLD).is_whole
