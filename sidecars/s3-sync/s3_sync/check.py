"""
``s3-sync check``: try everything that the daemon needs; report what is wrong and how to fix it.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Iterable, Mapping
from typing import Literal

from s3_sync.digest import Content
from s3_sync.folder.journal import NAME as MANAGED
from s3_sync.folder.journal import read_journal
from s3_sync.folder.paths import opened
from s3_sync.folder.record import read_published
from s3_sync.folder.target import LOCK
from s3_sync.folder.volume import LINK, SNAPSHOTS, STAGING, list_name
from s3_sync.keys import RESERVED
from s3_sync.listing import CONNECTIONS, ListingSource, changing
from s3_sync.metrics import SyncMetrics
from s3_sync.plan import State, make_plan
from s3_sync.reasons import is_refusal
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
from sidecar_runtime.volume.errors import FULL_ADVICE, TargetError, explain_os_error
from sidecar_runtime.volume.files import free_bytes, free_inodes, nearest_folder
from sidecar_runtime.volume.lock import find_holder
from sidecar_runtime.volume.snapshots import is_name

# The most objects that a check reads, so that it takes seconds even for a large prefix.
OBJECTS_LIMIT = 1000
NAMED_OBJECTS = 3
# The allocation unit of most file systems: file sizes are rounded up to it.
BLOCK_BYTES = 4096


def run(settings: Settings, names: Iterable[str]) -> int:
    """
    Print one line per check; return the exit code: 0 only if the whole source can be published, as
    far as it was read, and a daemon that is already running, if any, has published it.

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
            is_release = self._settings.source_kind == "release"
            return asyncio.run(self._release() if is_release else self._permissions())
        except SidecarError as error:
            return _fail("credentials", error)

    def target(self) -> bool:
        """
        Check that the folder is writable and has room; leave nothing behind.
        """
        path, is_snapshot = self._settings.dest_path, self._settings.layout == "snapshot"
        try:
            has_links = try_folder("target", path, needs_symlinks=is_snapshot)
        except TargetError as error:
            return _fail("target", error)
        if not self._has_room():
            return False
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

    def _has_room(self) -> bool:
        """
        Whether the missing and changed files fit on the volume.
        """
        path = self._settings.dest_path
        try:
            held = _read_held(self._settings)
            place = nearest_folder(path)
            free, free_files = free_bytes(place), free_inodes(place)
            unit = os.statvfs(place).f_frsize
        except OSError as error:
            return _fail("target", explain_os_error(error, f"cannot read {path}"))
        files, is_snapshot = self._state.files, self._settings.layout == "snapshot"
        new = make_plan(self._state, held, may_delete=False).put
        # Some network file systems report units of megabytes, but small files take less.
        unit = min(unit or 1, BLOCK_BYTES)
        needed = sum(-(-files[path].size_bytes // unit) * unit for path in new)
        # A snapshot has a name for every file; on tmpfs, each takes an inode.
        names = files if is_snapshot else new
        folders = {path[:end] for path in names for end, letter in enumerate(path) if letter == "/"}
        inodes = len(names) + len(folders)
        if needed < free and inodes <= free_files:
            return True
        lack = f"{inodes} inodes needed, {free_files} free"
        if needed >= free:
            lack = f"{needed / (1 << 20):.1f} MiB needed, {free / (1 << 20):.1f} MiB free"
        say("FAIL", "target", f"target_full: {lack} on {path}")
        say("", "", FULL_ADVICE)
        return False

    async def _permissions(self) -> bool:
        settings = self._settings
        source = ListingSource(settings, self._client)
        try:
            self._state = await source.read(self._fence)
        except SidecarError as error:
            return _fail("s3:ListBucket", error)
        found = f"files: {len(self._state.files)}, keys skipped: {len(self._state.skipped)}"
        say("ok", "s3:ListBucket", found)
        return await self._read_objects(source)

    async def _release(self) -> bool:
        """
        Read the pointer unless a release is pinned, the manifest, and one byte of the bundle.
        """
        source = ReleaseSource(self._settings, self._client)
        if (published := read_published(self._settings)) is not None:
            source.sequence = published.sequence, published.signed_by
        try:
            self._state = state = await source.read(self._fence)
            _, signer = state.sequence
            signed = f", signed by {signer}" if signer else ""
            say("ok", "release", f"{state.revision}, files: {len(state.files)}{signed}")
            await source.try_bundle(state, _Nowhere())
        except SidecarError as error:
            return _fail("release", error)
        say("ok", "s3:GetObject", "pointer, manifest and bundle")
        return True

    async def _read_objects(self, source: ListingSource) -> bool:
        """
        Read a byte of each object, up to a limit: only a real read proves the permission.
        """
        failed: dict[str, SidecarError] = {}
        chosen = _choose(self._state)
        moved = await self._read(chosen, failed)
        if moved:  # it may have changed after it was listed
            self._state = await source.read(self._fence)
            again = [path for path in moved if path in self._state.files]
            for path in await self._read(again, failed):
                failed[path] = changing(f"{self._settings.prefix}{path}")
        for reason in sorted({error.reason for error in failed.values()}):
            paths = sorted(path for path, error in failed.items() if error.reason == reason)
            keys = [f"{self._settings.prefix}{path}" for path in paths[:NAMED_OBJECTS]]
            names = ", ".join(keys) + (", …" if len(paths) > NAMED_OBJECTS else "")
            first = failed[paths[0]]
            count = f"{len(paths)} of {len(chosen)} objects cannot be read"
            first.message = f"{count} ({names}): {first.message}"
            _fail("s3:GetObject", first)
        if chosen and not failed:
            mark: Literal["ok", "??"] = "ok" if len(chosen) == len(self._state.files) else "??"
            say(mark, "s3:GetObject", f"{len(chosen)} of {len(self._state.files)} objects read")
        return not failed

    async def _read(self, paths: Iterable[str], failed: dict[str, SidecarError]) -> list[str]:
        """
        Read objects; return those that differ from the listing, and add errors to `failed`.
        """
        moved: list[str] = []
        queue = iter(paths)

        async def read_next() -> None:
            for path in queue:
                key, file = f"{self._settings.prefix}{path}", self._state.files[path]
                try:
                    await self._client.get_object(
                        key, file.etag, file.size_bytes, _Nowhere(), is_trial=True
                    )
                except SidecarError as error:
                    failed[path] = error
                    if not is_refusal(error.reason):  # the endpoint may be failing
                        return
                except ObjectMoved:
                    moved.append(path)

        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(read_next())
        return moved


def _choose(state: State) -> list[str]:
    """
    Return the files to read: one of each folder first, in case there are too many.
    """
    of_folders = {path.rpartition("/")[0]: path for path in state.files}
    return list(dict.fromkeys([*of_folders.values(), *state.files]))[:OBJECTS_LIMIT]


def _read_held(settings: Settings) -> Mapping[str, Content]:
    """
    Return the files that are published, without changing anything.
    """
    path = settings.dest_path
    try:
        with opened(path) as root, opened(RESERVED, root) as state:
            if settings.layout == "in-place":
                return read_journal(MANAGED, state, root, is_shared=True)[0]
            name = os.path.basename(os.readlink(LINK, dir_fd=root))
            with opened(SNAPSHOTS, state) as store, opened(name, store) as folder:
                return read_journal(list_name(name), store, folder, is_shared=False)[0]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL):  # the last one: not a link
            return {}
        raise


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
    if os.path.isdir(link) and not os.path.islink(link) and os.listdir(link):
        say("FAIL", "layout", f"link_blocked: {link} is a folder that contains files; move them")
        return False
    if os.path.isfile(link) and not os.path.islink(link) and not _has_snapshots(path):
        say("FAIL", "layout", f"link_blocked: {link} is a file; move it")
        return False
    say("ok", "layout", f"snapshot: Airflow's dags_folder must be {link}")
    if not has_links:
        say("??", "", "no hard links on this volume: each snapshot will be a full copy")
    return True


def _has_snapshots(path: str) -> bool:
    """
    Whether a snapshot exists: the link was published then, and a file in its place is replaced.
    """
    try:
        with os.scandir(f"{path}/{RESERVED}/{SNAPSHOTS}") as found:
            return any(is_name(one.name) and one.is_dir(follow_symlinks=False) for one in found)
    except OSError:
        return False


def _fail(name: str, error: SidecarError) -> bool:
    fail(name, error)
    if isinstance(error, S3Error) and error.permission is not None:
        action, resource = error.permission.action, error.permission.arn
        statement = {"Effect": "Allow", "Action": action, "Resource": resource}
        for line in json.dumps(statement, indent=2).splitlines():
            say("", "", line)
    return False
