"""
``s3-sync check``: try everything that the daemon needs; report what is wrong and how to fix it.

Name clashes on a volume that ignores case are the daemon's alone: it finds them as it writes.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress

from s3_sync.folder.target import Record
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
from sidecar_runtime.checks import daemon, exit_code, fail, say, try_folder, try_gate, unknown
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import make_gate
from sidecar_runtime.volume.files import FULL_ADVICE, TargetError, nearest_folder
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
    hidden = f"{settings.dest_path}/{RESERVED}"
    state = _check_source(settings)
    is_target_good = _check_target(settings, state or State("", {}))
    # The gate's trial is hidden from an Airflow that reads the target.
    folder = f"{hidden}/{STAGING}"
    gate = make_gate(settings, SyncMetrics(__version__, "check").gate)
    is_gate_good = try_gate(gate, settings.gate, folder if os.path.isdir(folder) else None, Fence())
    is_daemon_good = daemon("s3-sync", settings.source, settings.http_bind)
    return exit_code([state is not None, is_target_good, is_gate_good, is_daemon_good])


def _check_source(settings: Settings) -> State | None:
    """
    Check credentials and identity, then each permission with a real request; return what the
    source has, or None if it cannot be read.
    """
    is_public = settings.bucket_access == "public"
    chain, fence = Chain(is_anonymous=is_public), Fence()
    pays = settings.bucket_access == "requester-pays"
    client = S3Client(settings.bucket, settings.prefix, chain, lambda _: None, pays=pays)
    part = "credentials"
    try:
        credentials, config = chain.current(fence)
        endpoint = (config.endpoint_url or "AWS").rpartition("@")[2]
        used = "not used: requests are unsigned" if is_public else f"from {credentials.method}"
        say("ok", part, f"{used}; {endpoint}, region {config.region or 'not set'}")
        identity = chain.identity(fence)
        say("ok" if identity else "??", "identity", identity or "not reported by STS; not fatal")
        client.begin_cycle(fence)
        part = "source"
        read = _read_release if settings.source_kind == "release" else _read_listing
        return asyncio.run(read(settings, client, fence))
    except SidecarError as error:
        fail(part, error)
        if isinstance(error, S3Error) and error.permission is not None:
            action, resource = error.permission
            statement = {"Effect": "Allow", "Action": action, "Resource": resource}
            for line in json.dumps(statement, indent=2).splitlines():
                say("", "", line)
        return None


async def _read_listing(settings: Settings, client: S3Client, fence: Fence) -> State:
    """
    List the prefix, and read some objects: only a real read proves the permission.
    """
    state = await ListingSource(settings, client).read(fence)
    found = f"files: {len(state.files)}, keys skipped: {len(state.skipped)}"
    say("ok", "s3:ListBucket", found)
    in_order = sorted(state.files.items(), key=lambda one: -one[1].size_bytes)
    smallest = {path.rpartition("/")[0]: path for path, _ in in_order}
    chosen = list(smallest.values())[:OBJECTS]
    for path in chosen:
        file = state.files[path]
        with suppress(ObjectMoved):  # it was changed or deleted meanwhile
            key = f"{settings.prefix}{path}"
            await client.get_object(key, file.etag, file.size_bytes, _Nowhere())
    say("ok", "s3:GetObject", f"{len(chosen)} of {len(state.files)} objects read")
    return state


async def _read_release(settings: Settings, client: S3Client, fence: Fence) -> State:
    """
    Read the pointer unless a release is pinned, the manifest, and one byte of the bundle.
    """
    source = ReleaseSource(settings, client)
    with suppress(OSError):
        if published := Record(settings).read_outside(settings.dest_path):
            source.sequence = published.sequence, published.signed_by
    state = await source.read(fence)
    signer = state.sequence[1]
    signed = f", signed by {signer}" if signer else ""
    say("ok", "release", f"{state.revision}, files: {len(state.files)}{signed}")
    await source.try_bundle(state, _Nowhere())
    say("ok", "s3:GetObject", "pointer, manifest and bundle")
    return state


class _Nowhere:
    """
    A receiver that keeps nothing.
    """

    def restart(self) -> None:
        pass

    def write(self, chunk: bytes) -> None:
        pass


def _check_target(settings: Settings, state: State) -> bool:
    """
    Check that the folder is writable and has room for the source, and its link, if the layout has
    one, is not blocked; leave nothing behind.
    """
    path, is_snapshot = settings.dest_path, settings.layout == "snapshot"
    try:
        has_links = try_folder("target", path, needs_symlinks=is_snapshot)
        needed = sum(file.size_bytes for file in state.files.values())
        total = shutil.disk_usage(nearest_folder(path)).total
        if needed > total:
            lack = f"{needed / (1 << 20):.1f} MiB needed, the volume has {total / (1 << 20):.1f}"
            raise TargetError("target_full", f"{lack} ({path})", FULL_ADVICE)
    except TargetError as error:
        return fail("target", error)
    if not is_snapshot:
        return True
    link, store = f"{path}/{LINK}", f"{path}/{RESERVED}/{SNAPSHOTS}"
    has_snapshots = os.path.isdir(store) and any(map(is_name, os.listdir(store)))
    is_file = os.path.isfile(link) and not has_snapshots  # otherwise the daemon replaces it
    if not os.path.islink(link) and (is_file or (os.path.isdir(link) and os.listdir(link))):
        say("FAIL", "layout", f"link_blocked: {link} is not a link; move it")
        return False
    say("ok", "layout", f"snapshot: Airflow's dags_folder must be {link}")
    if not has_links:
        say("??", "", "no hard links on this volume: each snapshot will be a full copy")
    return True
