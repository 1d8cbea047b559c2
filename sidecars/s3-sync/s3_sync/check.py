"""
``s3-sync check``: try everything that the daemon needs; report what is wrong and how to
fix it.

The target is opened by the daemon's own code. Name clashes on a volume that ignores
case are the daemon's alone: it finds them as it writes.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress

from s3_sync.layout import open_layout
from s3_sync.listing import ListingSource
from s3_sync.metrics import SyncMetrics
from s3_sync.names import RESERVED
from s3_sync.plan import State
from s3_sync.published import signer_of
from s3_sync.readiness import read_outside
from s3_sync.reasons import ObjectMoved, S3Error
from s3_sync.release.source import ReleaseSource
from s3_sync.s3.client import Get, S3Client
from s3_sync.settings import Settings
from s3_sync.volume import LINK, TARGET_FLAGS, Occupied, open_volume
from sidecar_runtime import logs
from sidecar_runtime.checks import Checks
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import make_gate
from sidecar_runtime.volume.files import (
    FULL_ADVICE,
    TargetError,
    TargetLock,
    explained,
    nearest_folder,
)
from sidecar_runtime.volume.snapshots import Snapshots, opened

# Objects that are read: the smallest one of each folder, up to this many.
OBJECTS = 20


def run(
    settings: Settings,
    names: Iterable[str],
    open_client: Callable[[Settings, SyncMetrics], S3Client],
) -> int:
    """
    Print one line per check; return the exit code: 0 only if the source can be
    published, as far as it was read, and a daemon that is already running, if any, has
    published it.

    Args:
        names: Variables with our prefix that are not settings.
    """
    logs.configure("error", stream=sys.stderr)
    print(f"s3-sync check: {settings.source} -> {settings.dest_path}")
    checks = Checks(names)
    metrics = SyncMetrics()
    state = _check_source(checks, settings, open_client(settings, metrics))
    _check_target(checks, settings, state)
    checks.try_gate(make_gate(settings, metrics.gate), settings.gate, Fence())
    checks.daemon(settings.http_bind)
    return checks.exit_code


def _check_source(checks: Checks, settings: Settings, client: S3Client) -> State:
    """
    Check credentials and identity, then each permission with a real request; return
    what the source has, or nothing if it cannot be read.
    """
    fence = Fence()
    part = "credentials"
    try:
        credentials, config = client.chain.current(fence)
        endpoint = (config.endpoint_url or "AWS").rpartition("@")[2]
        used = (
            "not used: requests are unsigned"
            if settings.bucket_access == "public"
            else f"from {credentials.method}"
        )
        checks.ok(part, f"{used}; {endpoint}, region {config.region or 'not set'}")
        identity = client.chain.identity(fence)
        checks.say(
            "ok" if identity else "??",
            "identity",
            identity or "not reported by STS; not fatal",
        )
        part = "source"
        read = _read_release if settings.source_kind == "release" else _read_listing
        return asyncio.run(read(checks, settings, client, fence))
    except SidecarError as error:
        checks.fail(part, error)
        if isinstance(error, S3Error) and error.permission is not None:
            action, resource = error.permission
            for line in json.dumps(
                {"Effect": "Allow", "Action": action, "Resource": resource}, indent=2
            ).splitlines():
                checks.add(line)
        return State("", {})


async def _read_listing(
    checks: Checks, settings: Settings, client: S3Client, fence: Fence
) -> State:
    """
    List the prefix, and read the first byte of some objects: only a real read proves
    the permission.
    """
    state = await ListingSource(settings, client).read(fence)
    checks.ok(
        "s3:ListBucket",
        f"files: {len(state.files)}, keys skipped: {len(state.skipped)}",
    )
    in_order = sorted(state.files, key=lambda path: -state.files[path].size_bytes)
    chosen = list({path.rpartition("/")[0]: path for path in in_order}.values())[
        :OBJECTS
    ]
    for path in chosen:
        # it was changed or deleted meanwhile, or it is empty
        with suppress(ObjectMoved):
            await client.get(
                Get(
                    "get",
                    f"{settings.prefix}{path}",
                    headers=lambda: {"range": "bytes=0-0"},
                )
            )
    checks.ok("s3:GetObject", f"{len(chosen)} of {len(state.files)} objects read")
    return state


async def _read_release(
    checks: Checks, settings: Settings, client: S3Client, fence: Fence
) -> State:
    """
    Read the pointer unless a release is pinned, the manifest, and one byte of the
    bundle.
    """
    source = ReleaseSource(settings, client)
    seen: Mapping[str, int] = {}
    with suppress(OSError):
        seen = read_outside(settings).sequences
    state = await source.read(fence, seen)
    signer = signer_of(state.sequences)
    signed = f", signed by {signer}" if signer else ""
    checks.ok("release", f"{state.revision}, files: {len(state.files)}{signed}")
    await source.try_bundle(state)
    checks.ok("s3:GetObject", "pointer, manifest and bundle")
    return state


def _check_target(checks: Checks, settings: Settings, state: State) -> None:
    """
    Check that the source fits into the folder and that the daemon could open it, unless
    one has; leave nothing behind: where no daemon has ever been, nothing is made. Only
    an empty folder in the link's place goes, as the daemon would remove it.
    """
    path = settings.dest_path
    try:
        needed = sum(file.size_bytes for file in state.files.values())
        with explained(f"cannot open {path} or {RESERVED} in it"):
            if os.path.lexists(f"{path}/{RESERVED}"):
                _open(settings)
            elif settings.is_snapshot and os.path.isdir(path):
                with opened(path, flags=TARGET_FLAGS) as root:
                    Snapshots(root, root, RESERVED, LINK).make_way(is_first=True)
            total = shutil.disk_usage(nearest_folder(path)).total
        if needed > total:
            raise TargetError(
                "target_full",
                f"{needed / (1 << 20):.1f} MiB needed, the volume has "
                f"{total / (1 << 20):.1f} ({path})",
                FULL_ADVICE,
            )
        checks.try_folder("target", path, needs_symlinks=settings.is_snapshot)
    except SidecarError as error:
        checks.fail("target", error)
        return
    if settings.is_snapshot:
        checks.ok("layout", f"snapshot: Airflow's dags_folder must be {path}/current")


def _open(settings: Settings) -> None:
    """
    Open the target as the daemon does, unless one has.
    """
    path = settings.dest_path
    with (
        suppress(Occupied),
        closing(
            open_volume(path, TargetLock(), settings.mode_on_disk, fsync=settings.fsync)
        ) as volume,
        closing(open_layout(settings, volume)) as layout,
    ):
        layout.make_way()
