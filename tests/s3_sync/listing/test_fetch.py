"""Fetching the objects of a listing: what fails alone, and what ends the cycle."""

import math
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from s3_sync.download import CONNECTIONS
from s3_sync.listing import FAILURES_ALONE, Entry, ListingSource
from s3_sync.plan import State
from s3_sync.s3.client import S3Client
from s3_sync.s3.http import WireError
from s3_sync.settings import load_settings
from s3_sync.tree import Fill, Tree
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests import Texts
from tests.s3_sync.given import play
from tests.support.aws.fake_s3 import FakeS3, error, is_get
from tests.support.http.faults import flip_first_bit, replace_body
from tests.support.raising import raised


class Fetching:
    """The downloads of one cycle: a bucket, a folder, and what became of them."""

    def __init__(self, s3: FakeS3, folder: Tree) -> None:
        self.s3 = s3
        self.folder = folder
        self.fill = Fill(folder, Fence(), math.inf)

    def put(self, *names: str) -> list[str]:
        self.s3.put_each((f"dags/{name}" for name in names), b"x = 1\n")
        return list(names)

    def fetch(
        self,
        before: Mapping[str, SidecarError] = {},
        until: float = math.inf,
        verify: str = "auto",
    ) -> Fill:
        """Fetch all files; see `fill` if that raises an error."""
        files = {
            (path := key.removeprefix("dags/")): Entry(
                path, stored.etag, len(stored.body)
            )
            for key, stored in self.s3.objects.items()
        }
        given = {
            "AWS_BUCKET": self.s3.bucket,
            "KEY_PATH": "dags",
            "DEST_PATH": "/nowhere",
        }
        settings = load_settings(given | {"S3_SYNC_VERIFY": verify})[0]
        self.fill = Fill(self.folder, Fence(), until)

        async def scene(client: S3Client) -> None:
            await ListingSource(settings, client).fetch(
                tuple(files), State("r1", files), self.fill, before
            )

        play(self.s3, scene)
        return self.fill


@pytest.fixture
def fetching(s3: FakeS3, target: Tree) -> Fetching:
    return Fetching(s3, target)


def reasons(fill: Fill) -> Texts:
    return {path: error.reason for path, error in fill.failed.items()}


@pytest.mark.parametrize(
    ("verify", "is_aws", "is_refused"),
    [("auto", False, False), ("auto", True, True), ("strict", False, True)],
)
def test_an_etag_must_match_on_aws_or_if_the_setting_says_so(
    fetching: Fetching,
    monkeypatch: pytest.MonkeyPatch,
    verify: str,
    *,
    is_aws: bool,
    is_refused: bool,
) -> None:
    """Elsewhere, what contradicts an ETag is published, and counted."""
    monkeypatch.setattr(S3Client, "is_aws", is_aws)
    (name,) = fetching.put("a.py")
    fetching.s3.inject(replace_body(flip_first_bit), is_get())

    fill = fetching.fetch(verify=verify)

    assert ({name: "object_corrupt"} if is_refused else {}) == reasons(fill)
    assert is_refused or not fill.tree.files[name].is_verified


def test_refused_objects_and_those_that_failed_before_form_no_streak(
    fetching: Fetching,
) -> None:
    names = fetching.put(*(f"{number:02}.py" for number in range(3 * CONNECTIONS)))
    before = {name: WireError("request_timeout", name) for name in names}
    fetching.s3.inject(error(403, "AccessDenied"), is_get())
    assert len(names) == len(fetching.fetch().failed)
    fetching.s3.heal()
    fetching.s3.inject(error(500, "InternalError"), is_get())

    fill = fetching.fetch(before=before)
    late = fetching.fetch(before=before, until=time.monotonic())

    assert dict.fromkeys(names, "server_error") == reasons(fill)
    assert (dict.fromkeys(names, "request_timeout"), set()) == (
        reasons(late),
        late.unreached,
    )


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects are read one after the other."""
    monkeypatch.setattr("s3_sync.download.CONNECTIONS", 1)
    monkeypatch.setattr("random.shuffle", lambda order: None)


@pytest.mark.usefixtures("in_order")
def test_an_endpoint_that_fails_is_told_whatever_else_happens_beside_it(
    fetching: Fetching,
) -> None:
    """The first object has an error of its own; the last one is on disk."""
    names = fetching.put(*(f"{number:02}.py" for number in range(FAILURES_ALONE + 2)))
    Path(fetching.folder.path, names[-1]).write_bytes(b"x = 1\n")
    fetching.s3.inject(error(500, "InternalError"), is_get())
    fetching.s3.inject(error(403, "AccessDenied"), is_get(f"dags/{names[0]}"))

    assert "server_error" == raised(SidecarError, fetching.fetch).reason
    assert names[-1] in fetching.folder.files


@pytest.mark.usefixtures("in_order")
def test_where_an_empty_object_can_be_read_the_others_fail_alone(
    fetching: Fetching,
) -> None:
    fetching.s3.put("dags/__init__.py", b"")
    names = fetching.put(*(f"{number:02}.py" for number in range(FAILURES_ALONE)))
    for name in names:
        fetching.s3.inject(error(500, "InternalError"), is_get(f"dags/{name}"))

    assert dict.fromkeys(names, "server_error") == reasons(fetching.fetch())
