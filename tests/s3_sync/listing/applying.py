"""Applies plans to a target, with objects of a scripted bucket."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from s3_sync.listing.apply import ListingApplier
from s3_sync.listing.entries import Entry, Listing
from s3_sync.listing.trust import EtagTrust
from s3_sync.plan import Plan
from s3_sync.result import CycleResult
from s3_sync.s3.client import S3Client
from s3_sync.source import Order
from s3_sync.tree.target import Target
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests.s3_sync.given import play
from tests.support.aws.fake_s3 import FakeS3, is_get


class Cycle:
    """The publishing part of one cycle: a bucket, a target, and the applier's order."""

    def __init__(self, s3: FakeS3, target: Target, fence: Fence) -> None:
        self.s3 = s3
        self.target = target
        self.fence = fence
        self.result = CycleResult()
        self.trust = EtagTrust("auto", is_aws=False)

    def listed(self, *more: str) -> dict[str, Entry]:
        """Return the entries of the bucket's objects, and some that are listed but missing."""
        found = {
            path: Entry(path, stored.etag, len(stored.body), "dags/")
            for key, stored in self.s3.objects.items()
            if (path := key.removeprefix("dags/"))
        }
        return found | {path: Entry(path, "0" * 32, 5, "dags/") for path in more}

    def apply(
        self,
        publish: Iterable[str] | None = None,
        delete: Iterable[str] = (),
        *,
        damaged: Collection[str] = (),
        blocked: Collection[str] = (),
        wanted: dict[str, Entry] | None = None,
        before: Mapping[str, SidecarError] | None = None,
    ) -> CycleResult:
        entries = self.listed() if wanted is None else wanted
        plan = Plan(tuple(entries if publish is None else publish), tuple(delete))

        async def scene(client: S3Client) -> None:
            parts = (Listing(entries, {}, "r1"), plan, self.target, self.fence)
            self.result = CycleResult(before=before or {})
            order = Order(*parts, damaged=damaged, blocked=blocked, result=self.result)
            await ListingApplier(client, order, self.trust).apply()

        play(self.s3, scene)
        return self.result

    def gets(self) -> list[str]:
        return [request.path.partition("/dags/")[2] for request in self.s3.seen(is_get())]


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(place.relative_to(folder)): place.read_bytes()
        for place in folder.rglob("*")
        if place.is_file() and ".s3-sync" not in place.parts
    }
