"""
``s3-sync check``: try everything that the daemon needs; report what is wrong and how to fix it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress

from s3_sync.folder.record import Record
from s3_sync.folder.target import LOCK
from s3_sync.folder.volume import LINK, SNAPSHOTS, STAGING
from s3_sync.keys import RESERVED
from s3_sync.listing import ListingSource
from s3_sync.metrics import SyncMetrics
from s3_sync.plan import State
from s3_sync.release.source import ReleaseSource
from s3_sync.s3.client import S3Client
from s3_sync.s3.refusals import ObjectMoved, S3Error
from s3_sync.settings import Settings
from sidecar_runtime import __version__, proxies
from sidecar_runtime.aws.credentials import Chain
from sidecar_runtime.checks import daemon, exit_code, fail, say, unknown
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import make_gate
from sidecar_runtime.gate.trial import try_gate
from sidecar_runtime.volume.check import try_folder
from sidecar_runtime.volume.errors import FULL_ADVICE, TargetError
from sidecar_runtime.volume.files import nearest_folder
from sidecar_runtime.volume.lock import find_holder
from sidecar_runtime.volume.snapshots import is_name

# Objects that are read: the smallest one of each folder, up to this many.
OBJECTS = 20


def run(settings: Settings, names: Iterable[str]) -> int:
    """
    Print one line per check; return the exit code: 0 only if the source can be published, as far
    as it was read, and a daemon that is already running, if any, has published it.

    Args:
        names: Variables with our prefix that are not settings.
    """
    print(f"s3-sync check: {settings.source} -> {settings.dest_path}")
    unknown(names)
    for name, why in proxies.ignored(os.environ).items():
        say("??", "settings", f"{name}: {why}")
    checks = _Checks(settings)
    return exit_code([checks.source(), checks.target(), checks.gate(), checks.daemon()])


class _Checks:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fence = Fence()
        self._chain = Chain(is_anonymous=settings.bucket_access == "public")
        pays = settings.bucket_access == "requester-pays"
        self._client = S3Client(
            settings.bucket, settings.prefix, self._chain, lambda _: None, pays=pays
        )
        self._state = State("", {})

    def source(self) -> bool:
        """
        Check credentials and identity, then each permission with a real request.
        """
        try:
            credentials, config = self._chain.current(self._fence)
            endpoint = (config.endpoint_url or "AWS").rpartition("@")[2]
            where = f"{endpoint}, region {config.region or 'not set'}"
            is_public = self._settings.bucket_access == "public"
            used = "not used: requests are unsigned" if is_public else f"from {credentials.method}"
            say("ok", "credentials", f"{used}; {where}")
            identity = self._chain.identity(self._fence)
            say(
                "ok" if identity else "??", "identity", identity or "not reported by STS; not fatal"
            )
            self._client.begin_cycle(self._fence)
        except SidecarError as error:
            return _fail("credentials", error)
        is_release = self._settings.source_kind == "release"
        try:
            return asyncio.run(self._release() if is_release else self._listing())
        except SidecarError as error:
            return _fail("release" if is_release else "s3:ListBucket", error)

    def target(self) -> bool:
        """
        Check that the folder is writable and has room; leave nothing behind.
        """
        path, is_snapshot = self._settings.dest_path, self._settings.layout == "snapshot"
        try:
            has_links = try_folder("target", path, needs_symlinks=is_snapshot)
        except TargetError as error:
            return _fail("target", error)
        needed = sum(file.size_bytes for file in self._state.files.values())
        total = shutil.disk_usage(nearest_folder(path)).total
        if needed > total:
            lack = f"{needed / (1 << 20):.1f} MiB needed, the volume has {total / (1 << 20):.1f}"
            return _fail("target", TargetError("target_full", f"{lack} ({path})", FULL_ADVICE))
        return not is_snapshot or _check_link(path, has_links)

    def gate(self) -> bool:
        """
        Check that the gate can run.
        """
        settings = self._settings
        gate = make_gate(settings, SyncMetrics(__version__, "check").gate)
        # Hidden from an Airflow that reads the target.
        hidden = f"{settings.dest_path}/{RESERVED}/{STAGING}"
        folder = hidden if os.path.isdir(hidden) else None
        return try_gate(gate, settings.gate, folder, self._fence)

    def daemon(self) -> bool:
        """
        Check what a daemon that already runs on this folder reports.
        """
        settings = self._settings
        holder = find_holder(LOCK, os.path.join(settings.dest_path, RESERVED))
        return daemon("s3-sync", settings.source, settings.http_bind, holder)

    async def _listing(self) -> bool:
        """
        List the prefix, and read some objects: only a real read proves the permission.
        """
        self._state = state = await ListingSource(self._settings, self._client).read(self._fence)
        found = f"files: {len(state.files)}, keys skipped: {len(state.skipped)}"
        say("ok", "s3:ListBucket", found)
        files = sorted(state.files.items(), key=lambda one: -one[1].size_bytes)
        smallest = {path.rpartition("/")[0]: path for path, _ in files}
        chosen = list(smallest.values())[:OBJECTS]
        for path in chosen:
            key, file = f"{self._settings.prefix}{path}", state.files[path]
            try:
                await self._client.get_object(key, file.etag, file.size_bytes, _Nowhere())
            except ObjectMoved:  # it was changed or deleted meanwhile
                pass
            except SidecarError as error:
                return _fail("s3:GetObject", error)
        say("ok", "s3:GetObject", f"{len(chosen)} of {len(files)} objects read")
        return True

    async def _release(self) -> bool:
        """
        Read the pointer unless a release is pinned, the manifest, and one byte of the bundle.
        """
        source = ReleaseSource(self._settings, self._client)
        with suppress(OSError):
            if published := Record(self._settings).read_outside(self._settings.dest_path):
                source.sequence = published.sequence, published.signed_by
        self._state = state = await source.read(self._fence)
        _, signer = state.sequence
        signed = f", signed by {signer}" if signer else ""
        say("ok", "release", f"{state.revision}, files: {len(state.files)}{signed}")
        await source.try_bundle(state, _Nowhere())
        say("ok", "s3:GetObject", "pointer, manifest and bundle")
        return True


class _Nowhere:
    """
    A receiver that keeps nothing.
    """

    def restart(self) -> None:
        pass

    def write(self, chunk: bytes) -> None:
        pass


def _check_link(path: str, has_links: bool) -> bool:
    """
    Whether the snapshot layout can create its link.
    """
    link = f"{path}/{LINK}"
    store = f"{path}/{RESERVED}/{SNAPSHOTS}"
    has_snapshots = os.path.isdir(store) and any(map(is_name, os.listdir(store)))
    is_file = os.path.isfile(link) and not has_snapshots  # otherwise the daemon replaces it
    is_folder = os.path.isdir(link) and os.listdir(link)
    if not os.path.islink(link) and (is_file or is_folder):
        say("FAIL", "layout", f"link_blocked: {link} is not a link; move it")
        return False
    say("ok", "layout", f"snapshot: Airflow's dags_folder must be {link}")
    if not has_links:
        say("??", "", "no hard links on this volume: each snapshot will be a full copy")
    return True


def _fail(name: str, error: SidecarError) -> bool:
    fail(name, error)
    if isinstance(error, S3Error) and error.permission is not None:
        action, resource = error.permission.action, error.permission.arn
        statement = {"Effect": "Allow", "Action": action, "Resource": resource}
        for line in json.dumps(statement, indent=2).splitlines():
            say("", "", line)
    return False
