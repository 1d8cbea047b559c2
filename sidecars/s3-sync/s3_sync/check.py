"""
``s3-sync check``: try what the daemon will need, and say what is wrong and how to fix it.
"""

from __future__ import annotations

import asyncio
import json
import os

from s3_sync.keys import RESERVED, compile_filter
from s3_sync.lease import LOCK
from s3_sync.listing.entries import Listing
from s3_sync.listing.lister import Lister
from s3_sync.release.source import ReleaseSource
from s3_sync.s3.client import S3Client
from s3_sync.s3.refusals import ObjectMoved, S3Error
from s3_sync.settings import Settings
from s3_sync.tree.volume import LINK
from sidecar_runtime.aws.credentials import Chain
from sidecar_runtime.checks import exit_code, fail, say
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.check import try_folder
from sidecar_runtime.volume.errors import TargetError
from sidecar_runtime.volume.lock import find_holder


def run(settings: Settings) -> int:
    """
    Print one line a check; return the exit code.
    """
    print(f"s3-sync check: {settings.source} -> {settings.dest_path}")
    checks = _Checks(settings)
    return exit_code([checks.source(), checks.target()])


class _Checks:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fence = Fence()
        self._chain = Chain(is_anonymous=settings.bucket_access == "public")
        self._client = S3Client(
            settings.bucket,
            settings.prefix,
            self._chain,
            lambda _: None,
            pays=settings.bucket_access == "requester-pays",
        )

    def source(self) -> bool:
        """
        Credentials, identity, then each permission with a real request.
        """
        try:
            credentials, config = self._chain.current(self._fence)
            endpoint = (config.endpoint_url or "AWS").rpartition("@")[2]
            say("ok", "credentials", f"by {credentials.method}; {endpoint}, region {config.region}")
            identity = self._chain.identity(self._fence)
            say("ok" if identity else "??", "identity", identity or "STS did not say; not fatal")
            self._client.begin_cycle(self._fence)
            is_release = self._settings.source_kind == "release"
            return asyncio.run(self._release() if is_release else self._permissions())
        except SidecarError as error:
            return _fail("credentials", error)

    def target(self) -> bool:
        """
        Whether the folder can be written, and whether another daemon owns it; leaves nothing.
        """
        path = self._settings.dest_path
        try:
            has_links = try_folder("target", path)
        except TargetError as error:
            return _fail("target", error)
        if holder := find_holder(LOCK, os.path.join(path, RESERVED)):
            say("ok", "", f"a daemon keeps it: pid {holder.get('pid')} on {holder.get('host')}")
        return self._settings.layout != "snapshot" or _check_link(f"{path}/{LINK}", has_links)

    async def _permissions(self) -> bool:
        settings = self._settings
        lister = Lister(
            self._client.list_page,
            settings.prefix,
            compile_filter(settings.include, settings.exclude),
            len(settings.dest_path.encode()),
        )
        try:
            listing = await lister.read()
        except SidecarError as error:
            return _fail("s3:ListBucket", error)
        if not listing.wanted:
            text = f"allowed, but there is no file under {settings.source}"
            say("ok" if settings.allow_empty else "FAIL", "s3:ListBucket", text)
            if not settings.allow_empty:
                slip = "Check KEY_PATH for a typo; the daemon deletes nothing (source_empty)."
                say("", "", slip)
            return settings.allow_empty
        found = f"files: {len(listing.wanted)}, keys skipped: {len(listing.skipped)}"
        say("ok", "s3:ListBucket", found)
        return await self._read_one(listing)

    async def _release(self) -> bool:
        """
        Read the pointer, or the pin; the manifest; and a byte of the bundle.
        """
        source = ReleaseSource(self._settings, self._client)
        try:
            release = await source.look(self._fence)
            say("ok", "release", f"{release.revision}, files: {len(release.wanted)}")
            await source.try_bundle(_Nowhere())
        except SidecarError as error:
            return _fail("release", error)
        say("ok", "s3:GetObject", "pointer, manifest and bundle")
        return True

    async def _read_one(self, listing: Listing) -> bool:
        """
        Read the smallest object: a permission is proven only by its use.
        """
        entry = min(listing.wanted.values(), key=lambda found: found.size_bytes)
        try:
            await self._client.get_object(entry.key, entry.etag, entry.size_bytes, _Nowhere())
        except SidecarError as error:
            return _fail("s3:GetObject", error)
        except ObjectMoved:
            pass  # it may be read, it just changed
        say("ok", "s3:GetObject", entry.key)
        return True


class _Nowhere:
    """
    A receiver that keeps nothing.
    """

    def restart(self) -> None:
        pass

    def write(self, chunk: bytes) -> None:
        pass


def _check_link(link: str, has_links: bool) -> bool:
    """
    Whether the link of the snapshot layout can be where it should.
    """
    if os.path.isdir(link) and not os.path.islink(link) and os.listdir(link):
        say("FAIL", "layout", f"link_blocked: {link} is a folder with files; move them away")
        return False
    say("ok", "layout", f"snapshot: Airflow's dags_folder must be {link}")
    if not has_links:
        say("??", "", "no hard links on this volume: each snapshot will be a whole copy")
    return True


def _fail(name: str, error: SidecarError) -> bool:
    fail(name, error)
    if isinstance(error, S3Error) and error.permission is not None:
        action, resource = error.permission.action, error.permission.arn
        statement = {"Effect": "Allow", "Action": action, "Resource": resource}
        for line in json.dumps(statement, indent=2).splitlines():
            say("", "", line)
    return False
