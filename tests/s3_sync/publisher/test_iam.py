"""The IAM policies of releases allow exactly the requests of each command."""

import json
import os
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from s3_sync.publisher.cli import read_arguments, run
from s3_sync.publisher.prune import prune
from s3_sync.release.names import BUNDLE_FOLDER, MANIFEST_FOLDER, POINTER_KEY
from tests.s3_sync.bucket import Bucket
from tests.s3_sync.failing import failure
from tests.s3_sync.publisher.test_prune import releases
from tests.support.aws.fake_s3 import error, is_list
from tests.support.aws.writable_s3 import forbid_missing, is_completion, is_write
from tests.support.http.faults import first
from tests.support.http.loopback import Request
from tests.support.s3_sync.publishing import EXAMPLES_PREFIX, PREFIX
from tests.support.s3_sync.releases import ABSENT, make_release

IAM = Path(__file__).parents[3] / "charts-snippets" / "iam"
BUCKET_ARN = "arn:aws:s3:::my-airflow-bucket"
Asked = tuple[str, str, str]
ACTIONS = {
    "GET": "s3:GetObject",
    "HEAD": "s3:GetObject",
    "PUT": "s3:PutObject",
    "POST": "s3:PutObject",
    "DELETE": "s3:DeleteObject",
}


def asked_for(request: Request) -> Asked:
    """Return the action, resource and listed prefix of a request."""
    if is_list(request):
        return "s3:ListBucket", BUCKET_ARN, request.query["prefix"]
    key = request.path.split("/", 2)[2]
    is_abort = request.method == "DELETE" and "uploadId" in request.query
    action = "s3:AbortMultipartUpload" if is_abort else ACTIONS[request.method]
    return action, f"{BUCKET_ARN}/{key}", ""


def statements(name: str, prefix: str = PREFIX) -> list[dict[str, Any]]:
    text = (IAM / name).read_text().replace(EXAMPLES_PREFIX, prefix)
    found: list[dict[str, Any]] = json.loads(text)["Statement"]
    return found


def parts(statement: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield each pair of action and resource, with the pattern that a prefix must match."""
    prefix = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix", "*")
    actions, resources = statement["Action"], statement["Resource"]
    for action in [actions] if isinstance(actions, str) else actions:
        for resource in [resources] if isinstance(resources, str) else resources:
            yield action, resource, prefix


def allows(part: tuple[str, str, str], asked: Asked) -> bool:
    return all(fnmatchcase(found, pattern) for found, pattern in zip(asked, part, strict=True))


def requested(bucket: Bucket) -> set[Asked]:
    """Without botocore's requests for the bucket's region after a 403, which may be refused."""
    requests = [r for r in bucket.server.requests if is_list(r) or r.path.count("/") > 1]
    return {asked_for(request) for request in requests}


def command(bucket: Bucket, *words: str) -> None:
    assert 0 == run(read_arguments([*words, f"s3://{bucket.server.bucket}/{PREFIX}"]), os.environ)


def publish(bucket: Bucket) -> None:
    bucket.publish({"a.py": b""})
    bucket.publish({"b.py": b""})
    command(bucket, "rollback")
    command(bucket, "pin", bucket.pointer().revision)
    bucket.store.part_bytes = 50
    bucket.publish({"c.py": b""})
    bucket.server.heal()
    bucket.server.inject(error(403, "AccessDenied"), is_completion)
    failure(bucket.publish, {"d.py": b""})


def prune_all(bucket: Bucket) -> None:
    made = releases(bucket, 5)
    pointer, since = made[0].pointer_bytes, made[0].pointer.turn.since
    point = first(lambda: bucket.server.put(PREFIX + POINTER_KEY, pointer, at=since))
    bucket.server.inject(point, is_write(".manifest"), times=1)
    prune(bucket.store, (), 0, 0, is_dry=False)
    bucket.server.put(f"{PREFIX}pins/{ABSENT}", b"")
    command(bucket, "unpin", ABSENT)
    bucket.server.put(f"{PREFIX}left/{ABSENT}", b"")
    prune(bucket.store, (), 0, 0, is_dry=False)


def read(bucket: Bucket) -> None:
    """Read one object of each kind that a reader requests, as the reference describes."""
    bucket.publish({"a.py": b""})
    bucket.server.forget()
    keys = [key.removeprefix(PREFIX) for key in bucket.bodies()]
    for folder in (POINTER_KEY, MANIFEST_FOLDER, BUNDLE_FOLDER):
        assert bucket.store.read(next(key for key in keys if key.startswith(folder)))


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("s3-sync-publish.json", publish),
        ("s3-sync-prune.json", prune_all),
        ("s3-sync-release.json", read),
    ],
)
def test_each_policy_allows_exactly_the_requests_of_its_command(
    bucket: Bucket, name: str, act: Callable[[Bucket], None]
) -> None:
    bucket.server.inject(forbid_missing)
    act(bucket)
    asked = requested(bucket)
    allowed = [part for statement in statements(name) for part in parts(statement)]

    refused = [one for one in asked if not any(allows(part, one) for part in allowed)]
    unused = [part for part in allowed if not any(allows(part, one) for one in asked)]

    assert ([], []) == (refused, unused)


def test_promoting_reads_the_source_as_a_reader_and_writes_the_target_as_a_publisher(
    bucket: Bucket,
) -> None:
    release = make_release({"a.py": b""})
    bucket.server.put_all(release.objects(), "dev/", at=release.pointer.turn.since)
    bucket.server.inject(forbid_missing)
    command(bucket, "promote", f"s3://{bucket.server.bucket}/dev")
    asked = requested(bucket)

    from_dev = {one for one in asked if one[1].startswith(f"{BUCKET_ARN}/dev/")}
    for requests, name, prefix in (
        (from_dev, "s3-sync-release.json", "dev/"),
        (asked - from_dev, "s3-sync-publish.json", PREFIX),
    ):
        allowed = [part for one in statements(name, prefix) for part in parts(one)]
        assert requests
        assert [] == [one for one in requests if not any(allows(part, one) for part in allowed)]
