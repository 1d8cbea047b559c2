"""
``s3-sync check``: try what the daemon will need, and say what is wrong and what mends it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil

from s3_sync.client import S3Client
from s3_sync.credentials import Chain
from s3_sync.keys import compile_filter
from s3_sync.listing import Lister, Listing
from s3_sync.refusals import ObjectMoved, Permission, S3Error
from s3_sync.settings import Settings
from s3_sync.target import Target
from s3_sync.volume import explain_os_error, open_folders
from sidecar_runtime.errors import EXIT_DONE, EXIT_GAVE_UP, SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.publish import TargetLock, read_holder


def run(settings: Settings) -> int:
    """
    Print one line a check; return the exit code.
    """
    print(f"s3-sync check: {settings.source} -> {settings.dest_path}")
    checks = _Checks(settings)
    results = [checks.source(), checks.target()]
    return EXIT_DONE if all(results) else EXIT_GAVE_UP


class _Checks:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fence = Fence()
        self._chain = Chain()
        self._client = S3Client(settings.bucket, self._chain, lambda _: None)

    def source(self) -> bool:
        """
        Credentials, identity, then each permission with a real request.
        """
        try:
            credentials, config = self._chain.current(self._fence)
            endpoint = config.endpoint_url or "AWS"
            _say(
                "ok", "credentials", f"by {credentials.method}; {endpoint}, region {config.region}"
            )
            identity = self._chain.identity(self._fence)
            _say("ok" if identity else "??", "identity", identity or "STS did not say; not fatal")
            self._client.begin_cycle(self._fence)
            return asyncio.run(self._permissions())
        except SidecarError as error:
            return _fail("credentials", error)

    def target(self) -> bool:
        """
        Whether the folder can be written, and whether another daemon owns it.
        """
        path = self._settings.dest_path
        try:
            root, state = open_folders(path)
            try:
                lock = TargetLock()
                if not lock.try_acquire("lock", state):
                    _say("ok", "target", f"{path} is kept by {read_holder('lock', state)}")
                    return True
                target = Target(path, file_mode=self._settings.file_mode, fsync=False)
                target.discard(target.open_staging())
                target.close()
                lock.release()
            finally:
                os.close(state)
                os.close(root)
        except OSError as error:
            return _fail("target", explain_os_error(error, f"cannot write to {path}"))
        free = shutil.disk_usage(path).free >> 20
        _say("ok", "target", f"{path} is writable, {free} MiB free, as uid {os.getuid()}")
        return True

    async def _permissions(self) -> bool:
        settings = self._settings
        lister = Lister(
            lambda token: self._client.list_page(settings.prefix, token),
            settings.prefix,
            compile_filter(settings.include, settings.exclude),
            len(settings.dest_path.encode()),
        )
        try:
            listing = await lister.read()
        except SidecarError as error:
            return _fail("s3:ListBucket", error)
        return _say_listing(listing, settings) and await self._read_one(listing)

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
        _say("ok", "s3:GetObject", entry.key)
        return True


class _Nowhere:
    """
    A receiver that keeps nothing.
    """

    def restart(self) -> None:
        pass

    def write(self, chunk: bytes) -> None:
        pass


def _say_listing(listing: Listing, settings: Settings) -> bool:
    if not listing.wanted:
        _say("FAIL", "s3:ListBucket", f"allowed, but there is no file under {settings.source}")
        _say("", "", "Check KEY_PATH for a slip; the daemon would delete nothing (source_empty).")
        return settings.allow_empty
    _say("ok", "s3:ListBucket", f"{len(listing.wanted)} files, {len(listing.skipped)} keys skipped")
    return True


def _say(mark: str, name: str, text: str) -> None:
    print(f"  {mark:<5} {name:<14} {text}")


def _fail(name: str, error: SidecarError) -> bool:
    _say("FAIL", name, f"{error.reason}: {error.message}")
    if error.advice:
        _say("", "", error.advice)
    if isinstance(error, S3Error) and error.permission is not None:
        for line in json.dumps(_statement(error.permission), indent=2).splitlines():
            _say("", "", line)
    return False


def _statement(permission: Permission) -> dict[str, object]:
    """
    Return the IAM statement that mends it: for objects, of the whole folder at once.
    """
    resource = permission.arn
    if permission.action == "s3:GetObject" and "/" in resource:
        resource = resource.rpartition("/")[0] + "/*"
    return {"Effect": "Allow", "Action": permission.action, "Resource": resource}
