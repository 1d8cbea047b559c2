"""Fetches the objects of a scripted bucket into a folder."""

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from s3_sync.download import Work
from s3_sync.folder.folder import Folder
from s3_sync.listing import Entry, ListingSource
from s3_sync.plan import State
from s3_sync.s3.client import S3Client
from s3_sync.settings import load_settings
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests.s3_sync.given import play
from tests.support.aws.fake_s3 import FakeS3, is_get


class Fetching:
    """The downloads of one cycle: a bucket, a folder, and what became of them."""

    def __init__(self, s3: FakeS3, folder: Folder, fence: Fence, verify: str = "auto") -> None:
        self.s3 = s3
        self.folder = folder
        self.fence = fence
        self.verify = verify
        self.work = Work(folder, fence, math.inf)

    def listed(self) -> dict[str, Entry]:
        """Return the entries of the bucket's objects."""
        return {
            path: Entry(path, stored.etag, len(stored.body))
            for key, stored in self.s3.objects.items()
            if (path := key.removeprefix("dags/"))
        }

    def source(self, client: S3Client) -> ListingSource:
        given = {"AWS_BUCKET": self.s3.bucket, "KEY_PATH": "dags", "DEST_PATH": "/nowhere"}
        return ListingSource(load_settings(given | {"S3_SYNC_VERIFY": self.verify})[0], client)

    def fetch(
        self,
        paths: Iterable[str] | None = None,
        *,
        listed: dict[str, Entry] | None = None,
        before: Mapping[str, SidecarError] | None = None,
        damaged: Collection[str] = (),
        until: float = math.inf,
    ) -> Work:
        """Fetch these files, by default all; see `work` if that raises an error."""
        files = self.listed() if listed is None else listed
        self.work = Work(self.folder, self.fence, until, damaged)

        async def scene(client: S3Client) -> None:
            wanted = tuple(files if paths is None else paths)
            await self.source(client).fetch(wanted, State("r1", files), self.work, before or {})

        play(self.s3, scene)
        return self.work

    def gets(self) -> list[str]:
        return [request.path.partition("/dags/")[2] for request in self.s3.seen(is_get())]


def reasons(work: Work) -> dict[str, str]:
    return {path: error.reason for path, error in work.failed.items()}


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(place.relative_to(folder)): place.read_bytes()
        for place in folder.rglob("*")
        if place.is_file() and ".s3-sync" not in place.parts
    }
