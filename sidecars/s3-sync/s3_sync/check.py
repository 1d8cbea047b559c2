"""
``s3-sync check``: try everything that the daemon needs; report what is wrong and how to fix it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Mapping
from typing import Literal

from s3_sync.digest import Content
from s3_sync.keys import RESERVED
from s3_sync.layouts.open import tree_part
from s3_sync.layouts.snapshot import BLOCK_BYTES
from s3_sync.lease import LOCK
from s3_sync.listing.apply import CONNECTIONS, changing
from s3_sync.listing.entries import Entry, Listing
from s3_sync.listing.lister import Lister
from s3_sync.listing.source import open_lister, source_empty
from s3_sync.metrics import SyncMetrics
from s3_sync.open_source import open_chain, open_client
from s3_sync.plan import make_plan
from s3_sync.release.source import ReleaseSource
from s3_sync.s3.refusals import UNREADABLE, ObjectMoved, S3Error
from s3_sync.settings import Settings
from s3_sync.tree.parts import read_target
from s3_sync.tree.volume import LINK, SNAPSHOTS_PATH, STAGING
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


def run(settings: Settings, names: Iterable[str], chain: Chain | None = None) -> int:
    """
    Print one line per check; return the exit code: 0 only if the whole source can be published, as
    far as it was read, and a daemon that is already running, if any, has published it.

    Args:
        names: Variables with our prefix that are not settings.
        chain: The credential chain to use instead of the one in the settings.
    """
    print(f"s3-sync check: {settings.source} -> {settings.dest_path}")
    unknown(names)
    for name, why in proxies.ignored(os.environ).items():
        say("??", "settings", f"{name}: {why}")
    checks = _Checks(settings, chain or open_chain(settings))
    return exit_code([checks.source(), checks.target(), checks.gate(), checks.daemon()])


class _Checks:
    def __init__(self, settings: Settings, chain: Chain) -> None:
        self._settings = settings
        self._fence = Fence()
        self._chain = chain
        self._client = open_client(settings, lambda _: None, chain=self._chain)
        self._wanted: Mapping[str, Content] = {}

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
        path = self._settings.dest_path
        try:
            has_links = try_folder("target", path)
        except TargetError as error:
            return _fail("target", error)
        if not self._has_room():
            return False
        return self._settings.layout != "snapshot" or _check_link(path, has_links)

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
        path, part = self._settings.dest_path, tree_part(self._settings)
        try:
            managed = read_target(path, part)
            place = nearest_folder(path)
            free, free_files = free_bytes(place), free_inodes(place)
            unit = os.statvfs(place).f_frsize
        except OSError as error:
            return _fail("target", explain_os_error(error, f"cannot read {path}"))
        new = make_plan(self._wanted, managed, may_delete=False).publish
        # Some network file systems report units of megabytes, but small files take less.
        unit = min(unit or 1, BLOCK_BYTES)
        needed = sum(-(-self._wanted[path].size_bytes // unit) * unit for path in new)
        folders = {path[:end] for path in new for end, letter in enumerate(path) if letter == "/"}
        # With snapshots or a gate, each file has two names; on tmpfs, each takes an inode.
        inodes = (len(new) + len(folders)) * (2 if part else 1)
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
        lister = open_lister(settings, self._client)
        try:
            listing = await lister.read()
        except SidecarError as error:
            return _fail("s3:ListBucket", error)
        if not listing.wanted and not settings.allow_empty:
            return _fail("s3:ListBucket", source_empty(settings, listing))
        found = f"files: {len(listing.wanted)}, keys skipped: {len(listing.skipped)}"
        say("ok", "s3:ListBucket", found)
        self._wanted = listing.wanted
        return await self._read_objects(lister, listing)

    async def _release(self) -> bool:
        """
        Read the pointer unless a release is pinned, the manifest, and one byte of the bundle.
        """
        source = ReleaseSource(self._settings, self._client, remembers=False)
        try:
            release = await source.look(self._fence)
            self._wanted = release.wanted
            signer = release.manifest.head.signed_by if release.is_trusted else ""
            signed = f", signed by {signer}" if signer else ""
            say("ok", "release", f"{release.revision}, files: {len(release.wanted)}{signed}")
            await source.try_bundle(_Nowhere())
        except SidecarError as error:
            return _fail("release", error)
        say("ok", "s3:GetObject", "pointer, manifest and bundle")
        return True

    async def _read_objects(self, lister: Lister, listing: Listing) -> bool:
        """
        Read a byte of each object, up to a limit: only a real read proves the permission.
        """
        failed: dict[str, SidecarError] = {}
        chosen = _choose(listing)
        moved = await self._read(chosen, failed)
        if moved:  # it may have changed after it was listed
            listed = (await lister.read()).wanted
            again = [listed[entry.path] for entry in moved if entry.path in listed]
            for entry in await self._read(again, failed):
                failed[entry.key] = changing(entry)
        for reason in sorted({error.reason for error in failed.values()}):
            keys = sorted(key for key, error in failed.items() if error.reason == reason)
            names = ", ".join(keys[:NAMED_OBJECTS]) + (", …" if len(keys) > NAMED_OBJECTS else "")
            first = failed[keys[0]]
            count = f"{len(keys)} of {len(chosen)} objects cannot be read"
            first.message = f"{count} ({names}): {first.message}"
            _fail("s3:GetObject", first)
        if chosen and not failed:
            mark: Literal["ok", "??"] = "ok" if len(chosen) == len(listing.wanted) else "??"
            say(mark, "s3:GetObject", f"{len(chosen)} of {len(listing.wanted)} objects read")
        return not failed

    async def _read(self, entries: Iterable[Entry], failed: dict[str, SidecarError]) -> list[Entry]:
        """
        Read objects; return those that differ from the listing, and add errors to `failed`.
        """
        moved: list[Entry] = []
        queue = iter(entries)

        async def read_next() -> None:
            for entry in queue:
                try:
                    await self._client.get_object(
                        entry.key, entry.etag, entry.size_bytes, _Nowhere(), is_trial=True
                    )
                except SidecarError as error:
                    failed[entry.key] = error
                    if error.reason not in UNREADABLE:  # the endpoint may be failing
                        return
                except ObjectMoved:
                    moved.append(entry)

        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(read_next())
        return moved


def _choose(listing: Listing) -> list[Entry]:
    """
    Return the objects to read: one of each folder first, in case there are too many.
    """
    of_folders = {path.rpartition("/")[0]: entry for path, entry in listing.wanted.items()}
    return list(dict.fromkeys([*of_folders.values(), *listing.wanted.values()]))[:OBJECTS_LIMIT]


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
        with os.scandir(f"{path}/{SNAPSHOTS_PATH}") as found:
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
