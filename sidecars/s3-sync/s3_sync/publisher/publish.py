"""
The commands that make a release current: publish, promote, rollback; and a trial of
them.

Each has the whole release in hand, built or downloaded and verified, before it writes
anything. If it is killed before the pointer is written, the current release stays, and
at most unused objects are left: the next publish of the same content completes them,
`prune-releases` removes them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from io import BufferedRandom
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

from s3_sync.names import short
from s3_sync.publisher import pointer
from s3_sync.publisher.bucket import Boto3Store
from s3_sync.publisher.catalog import (
    Current,
    ReleaseError,
    find_manifest,
    read_current,
    require_own_prefix,
)
from s3_sync.publisher.folder import (
    Origin,
    Parcel,
    build_parcel,
    download_parcel,
    scratch,
)
from s3_sync.publisher.gate import NAMED, Verdict
from s3_sync.publisher.releases import Report, compare, size_text
from s3_sync.release.format import (
    Invalid,
    Pointer,
    Turn,
    bundle_key,
    manifest_key,
    read_pointer,
    time_text,
    write_pointer,
)
from s3_sync.release.signature import Signer
from sidecar_runtime.errors import SidecarError, counted

ROLLED_BACK = "rolled back"
# What a trial publishes; the next release also has the file of the first one.
TRIALS = ("a first release (If-None-Match)", "the next release (If-Match)")


class Order(NamedTuple):
    """
    What a command that changes the current release works with.

    Args:
        signer: Signs the pointer; None: it is not signed.
        judge: Runs the gate on a release, and raises if it refuses.
        origin: Who runs the command, and where.
        forces: Whether to write everything again, and replace a pointer that is
            damaged, not trusted, or signed although there is no signer.
    """

    store: Boto3Store
    signer: Signer | None
    judge: Callable[[Parcel], Verdict]
    origin: Origin
    is_dry: bool = False
    forces: bool = False


def make_current(
    order: Order, take: Callable[[BufferedRandom], Parcel], done: str
) -> Report:
    """
    Make a release current.

    Args:
        take: Builds or downloads the release, into a file for its bundle.
        done: What the command does: ``published``, ``promoted`` or
            :data:`ROLLED_BACK`.

    Raises:
        SidecarError: There is no such release or folder, the gate refuses it, another
            publisher was faster, or S3 failed; the current release has not changed.
    """
    # Before the release is taken, so that a concurrent publish is not overwritten
    # unseen.
    before = read_current(order.store, forces=order.forces)
    with scratch() as place, TemporaryFile(dir=place) as bundle:
        return _apply(order, before, take(bundle), done)


def try_out(store: Boto3Store, origin: Origin) -> Report:
    """
    Publish twice and roll back in a prefix of its own, and remove what was written
    there, as far as the role may.

    Raises:
        SidecarError: The first of these that failed.
    """
    order = Order(store, None, lambda _: Verdict("off", ""), origin)
    trial = "the folder to publish"
    try:
        with scratch() as folder:
            build = partial(build_parcel, folder, (), origin, store)
            for trial in TRIALS:
                Path(folder, trial).touch()
                make_current(order, build, "published")
        trial = "a rollback"
        make_current(order, partial(download_parcel, store, "previous"), ROLLED_BACK)
    except SidecarError as error:
        error.message = f"{trial}: {error.message}"
        raise
    finally:
        with suppress(SidecarError):  # it is no right of a publisher
            for found in store.list(""):
                store.delete(found.key)
    return Report(
        [
            f"This store and role can publish. What the role may not delete stays: {store.url}"
        ],
        {"result": "possible"},
    )


def _apply(order: Order, before: Current, parcel: Parcel, done: str) -> Report:
    """
    Make a release current, unless it is or the gate refuses it; return what happened.

    Args:
        done: What the command does, as ``published``.
    """
    store = order.store
    previous = before.names.get("current")
    signer = order.signer
    left = parcel.left_out
    if before.etag is None and not order.forces:
        require_own_prefix(store)
    manifest = parcel.manifest
    revision = parcel.revision
    origin = {
        **manifest.origin,
        "by": order.origin["by"],
        "ci_url": order.origin["ci_url"],
    }
    what = f"{counted(len(manifest.files), 'file')}, {size_text(manifest.size_bytes)}"
    facts = {
        "url": store.url,
        "revision": revision,
        "previous": previous,
        "files": len(manifest.files),
        "size_bytes": manifest.size_bytes,
        "origin": origin,
        "left_out": left,
    }
    lines = [f"Left out: {len(left)} ({', '.join(left):.1000})"] if left else []
    if before.is_signed and signer is None and not order.forces:
        raise ReleaseError(
            "release_untrusted",
            f"{store.url}current.json is signed, but this command has no key to sign with",
            "Pass --sign-key; or --force to end signing, if no pod has trusted keys any more.",
        )
    is_signed = signer is None or before.signed_by == signer.key_id
    is_current = is_signed and previous == revision
    if is_current and not order.forces:
        if not order.is_dry:
            _upload(store, parcel)
        lines.append(f"Unchanged: {store.url} is already at {short(revision)} ({what})")
        return Report(lines, facts | {"result": "unchanged"})
    if done != ROLLED_BACK:
        verdict = order.judge(parcel)
        lines.append(verdict.text)
        facts["gate"] = verdict.gate
    changes = compare(find_manifest(store, previous) if previous else None, manifest)
    facts["changes"] = changes._asdict()
    if order.is_dry:
        lines.append(f"Would be {done} to {store.url}: {short(revision)}, {what}")
        facts["result"] = "planned"
    else:
        _write(store, before, parcel, _draft(order, before, revision, done, origin))
        lines.append(f"{done.capitalize()} {short(revision)} to {store.url}: {what}")
        facts["result"] = done.replace(" ", "_")
        if signer:
            lines.append(f"Signed by {signer.key_id}")
            facts["signed_by"] = signer.key_id
    if previous and previous != revision:
        name = short(previous)
        lines += [
            f"Changes: {changes}",
            *changes.lines()[:NAMED],
            f"Previous: {name}; `s3-sync rollback {name} {store.url}` goes back to it",
        ]
    return Report(lines, facts)


def _draft(
    order: Order,
    before: Current,
    revision: str,
    done: str,
    origin: Origin,
) -> pointer.Draft:
    """
    Return the next pointer, signed if there is a key.

    Its sequence is the time in seconds, or the previous sequence plus one if that is
    higher: more than any that pods remember, even if an old pointer was restored or it
    is missing.
    """
    store = order.store
    signer = order.signer
    turns = before.turns
    now = store.now()
    least = turns[0].sequence + 1 if turns else 0
    sequence = max(int(now.timestamp()), least)
    # The release that is current already adds no turn; a rollback takes back the turns
    # since.
    ended = [turn.revision for turn in (turns if done == ROLLED_BACK else turns[:1])]
    if revision in ended:
        turns = turns[ended.index(revision) + 1 :]
    turn = Turn(revision, sequence, time_text(now))
    data = write_pointer(Pointer(turn, origin, turns))
    data = signer.sign(data, store.bucket, store.prefix) if signer else data
    try:
        read_pointer(data, None, store.bucket, store.prefix)
    except Invalid as error:  # because of what it takes over from the one before
        raise ReleaseError(
            error.reason,
            f"readers would refuse the next current.json: {error}",
            "Find out who wrote it last, delete it, and publish; with a new key if you sign.",
        ) from None
    return pointer.Draft(turn, data, signer.key_id if signer else "")


# --- objects


def _write(
    store: Boto3Store, before: Current, parcel: Parcel, draft: pointer.Draft
) -> None:
    """
    Write what is missing of a release, and make it current.

    Raises:
        SidecarError: As :func:`pointer.replace`.
    """
    previous = before.names.get("current")
    _upload(store, parcel)
    if previous:
        # Write its manifest again, so that its date says when it was replaced.
        stored = store.read(manifest_key(previous))
        if stored is not None:
            store.put(manifest_key(previous), stored.data)
    pointer.replace(store, before, draft, parcel)
    bundle = bundle_key(parcel.manifest.bundle_sha256)
    if not all(map(store.look, (manifest_key(parcel.revision), bundle))):
        _upload(store, parcel)  # a prune had decided before the first upload


def _upload(store: Boto3Store, parcel: Parcel) -> None:
    """
    Write the bundle, then the manifest, also where they are: they may be altered, or
    old enough to be pruned.
    """
    store.put(bundle_key(parcel.manifest.bundle_sha256), parcel.bundle)
    store.put(manifest_key(parcel.revision), parcel.data)
