"""
Applies a plan from a release: stage and verify all changed files, publish all, then delete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from s3_sync.digest import is_sha256
from s3_sync.release.manifest import Manifest
from s3_sync.release.ranges import join
from s3_sync.release.rows import File
from s3_sync.release.unpack import Cutter, Unpacking
from s3_sync.s3.client import S3Client
from s3_sync.source import Order
from s3_sync.tree.staging import Staged
from s3_sync.tree.walk import Blocked

CONNECTIONS = 16


class ReleaseApplier:
    """
    Applies one order with one bundle.

    Nothing is published before all changed files are downloaded and verified. A crash before that
    leaves only staging files. A crash after that leaves, in place, some files new and some old,
    and a note that records it, until the next cycle continues.

    Args:
        key: The key of the bundle.
    """

    def __init__(self, client: S3Client, order: Order[File], key: str, manifest: Manifest) -> None:
        self._client = client
        self._order = order
        self._key = key
        self._manifest = manifest
        self._is_wanted = order.state.wanted.__contains__
        self._staged: list[Staged] = []

    async def take(self) -> None:
        """
        Apply the plan; delete last, and only if every file was published.

        Raises:
            ObjectMoved: The bundle does not exist.
            SidecarError: The bundle cannot be read, or does not match the manifest.
            OSError: The target fails as a whole.
            CycleAbandoned: The fence was revoked.
        """
        try:
            await self._stage_all(self._missing())
            self._publish_all()
        finally:
            for staged in self._staged:
                self._order.target.staging.drop(staged)
        if not self._order.result.failed:
            self._order.delete_all()

    def _missing(self) -> list[File]:
        """
        Return the files to take from the bundle; adopt those that are already on disk.
        """
        order, target, result = self._order, self._order.target, self._order.result
        missing = []
        for path in order.plan.publish:
            file = order.state.wanted[path]
            if path in order.blocked and target.is_blocked(path, self._is_wanted):
                result.blocked.add(path)
                continue
            held = target.managed.files.get(path)
            is_unsure = held is None or path in order.damaged or not is_sha256(held.etag)
            if is_unsure and target.holds(path, file):
                target.adopt(path, file, order.fence)
                is_healed = path in order.damaged
                result.succeed(path, is_published=False, is_healed=is_healed, is_new=held is None)
            else:
                missing.append(file)
        return missing

    async def _stage_all(self, missing: Sequence[File]) -> None:
        for file in missing:
            if not file.stored_bytes:
                self._staged.append(self._stage_empty(file))
        parts = join(self._manifest.locate(file for file in missing if file.stored_bytes))
        following = iter(parts)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(CONNECTIONS, len(parts))):
                    group.create_task(self._read_next(following))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    def _stage_empty(self, file: File) -> Staged:
        unpacking = Unpacking(file, self._order.target)
        try:
            return unpacking.finish()
        except BaseException:
            unpacking.discard()
            raise

    async def _read_next(self, parts: Iterator[list[File]]) -> None:
        for files in parts:
            cutter = Cutter(
                files, self._manifest.head.bundle_bytes, self._order.target, self._staged.append
            )
            try:
                await self._client.get(
                    "bundle", self._key, cutter.headers, cutter.size_bytes, cutter, cutter.check
                )
                cutter.finish()
            finally:
                cutter.restart()
                self._order.result.downloaded_bytes += cutter.received_bytes

    def _publish_all(self) -> None:
        order = self._order
        if self._staged or order.plan.delete:
            order.begin()
        with order.target.along(self._is_wanted) as way:
            self._staged.sort(reverse=True)  # popped from the end, folder by folder
            while self._staged:
                staged = self._staged[-1]
                path = staged.path
                is_new = path not in order.target.managed.files
                try:
                    order.target.put(staged, way, order.fence, self._is_wanted)
                except Blocked:
                    order.target.staging.drop(staged)
                    order.result.blocked.add(path)
                except OSError as error:
                    order.target.staging.drop(staged)
                    order.result.fail_on_disk(path, error)
                else:
                    is_healed = path in order.damaged
                    order.result.succeed(
                        path, is_published=True, is_healed=is_healed, is_new=is_new
                    )
                self._staged.pop()
