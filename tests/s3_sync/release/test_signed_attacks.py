"""
Whoever can write to the bucket tries to have other DAGs run: with trusted keys nothing comes of
it, and without them nothing that contradicts itself is shown.
"""

import json
import os
from collections.abc import Callable, Iterator

import pytest

from s3_sync.release.manifest import split_manifest
from s3_sync.release.names import bundle_key
from s3_sync.release.signed import sign_manifest
from s3_sync.signature import signature_line
from tests.s3_sync.release.attacks import (
    HONEST,
    ORIGIN,
    THIEF,
    Attack,
    Facts,
    Objects,
    Scene,
    Stage,
    assert_consistent,
    staged,
)
from tests.s3_sync.release.pointer_attacks import EVIL, KEY_ATTACKS, POINTER_ATTACKS, signature_of
from tests.support.releases import make_release


def manifest(change: Callable[[bytes], bytes]) -> Attack:
    """Alter the bytes of an honest manifest."""
    return lambda scene: scene.objects(manifest=change(scene.next.manifest_bytes))


def line(change: Callable[[Facts], object]) -> Attack:
    """Alter what its first line says, and keep its signature."""

    def alter(data: bytes) -> bytes:
        first, _, rest = data.partition(b"\n")
        facts = json.loads(first)
        change(facts)
        return json.dumps(facts).encode() + b"\n" + rest

    return manifest(alter)


def said(name: str, value: object) -> Attack:
    return line(lambda facts: facts.__setitem__(name, value))


def unsigned(data: bytes) -> bytes:
    lines, _, at = split_manifest(data)
    return lines + data[at:]


def resigned(text: Callable[[str], str]) -> Callable[[bytes], bytes]:
    """Give a manifest another signature."""

    def alter(data: bytes) -> bytes:
        lines, old, at = split_manifest(data)
        return lines + signature_line(text(old)) + data[at:]

    return alter


def older(scene: Scene) -> Objects:
    """Put back what the honest publisher once said of the same content."""
    old = make_release(scene.files, origin=ORIGIN._replace(by="before"), signer=HONEST.signer)
    return scene.objects(manifest=old.manifest_bytes)


NAMED_ATTACKS: dict[str, tuple[str, Attack]] = {
    "the manifest's signature is stripped": ("release_untrusted", manifest(unsigned)),
    "the verdict is another": (
        "release_untrusted",
        line(lambda facts: facts["airflow"].__setitem__("dags", 99)),
    ),
    "the verdict is removed": ("release_untrusted", line(lambda facts: facts.pop("airflow"))),
    "the author is another": ("release_untrusted", said("created_by", "mallory")),
    "the time is another": ("release_untrusted", said("created_at", "2030-01-01T00:00:00Z")),
    "the commit is another": ("release_untrusted", said("git", {"commit": "6" * 40})),
    "the totals are others": ("release_untrusted", said("totals", {"files": 1, "size_bytes": 1})),
    "the bundle is another": (
        "release_untrusted",
        lambda scene: {
            bundle_key(EVIL.manifest.head.bundle_sha256): EVIL.bundle_bytes,
            **line(
                lambda facts: facts["bundle"].update(
                    sha256=EVIL.manifest.head.bundle_sha256, size_bytes=len(EVIL.bundle_bytes)
                )
            )(scene),
        },
    ),
    "a name is twice in its first line": (
        "release_untrusted",
        manifest(lambda data: data.replace(b"{", b'{"created_by": "mallory",', 1)),
    ),
    "a chunk is said to be longer": (
        "release_untrusted",
        manifest(lambda data: data.replace(b", 1", b", 2", 1)),
    ),
    "the manifest is signed by a stranger": (
        "release_untrusted",
        manifest(lambda data: sign_manifest(data, THIEF.signer)),
    ),
    "an old manifest of the same content is put back": ("release_untrusted", older),
    "the manifest is that of another release": (
        "release_untrusted",
        lambda scene: scene.objects(manifest=scene.good.manifest_bytes),
    ),
    "the manifest has the pointer's signature": (
        "release_untrusted",
        lambda scene: scene.objects(
            manifest=resigned(lambda _: signature_of(scene.next.pointer_bytes))(
                scene.next.manifest_bytes
            )
        ),
    ),
    "the manifest has garbage for a signature": (
        "release_untrusted",
        manifest(resigned(lambda _: "x" * 500)),
    ),
    "the manifest has a signature of another algorithm": (
        "release_untrusted",
        manifest(resigned(lambda old: old.replace("ed25519", "rsa-4096"))),
    ),
    "the manifest is empty": ("release_invalid", manifest(lambda _: b"")),
    "its chunks are others": (
        "release_invalid",
        lambda scene: scene.objects(
            manifest=scene.next.manifest_bytes[: scene.next.pointer.head_bytes] + b"x" * 200
        ),
    ),
    "the manifest is deleted": ("release_missing", lambda scene: scene.objects(manifest=None)),
    "the bundle is swapped": (
        "bundle_corrupt",
        lambda scene: scene.objects(bundle=os.urandom(len(scene.next.bundle_bytes))),
    ),
    "the bundle is cut off": (
        "bundle_corrupt",
        lambda scene: scene.objects(bundle=scene.next.bundle_bytes[:20]),
    ),
    "the bundle is deleted": ("release_missing", lambda scene: scene.objects(bundle=None)),
}

ATTACKS = POINTER_ATTACKS | KEY_ATTACKS | NAMED_ATTACKS


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("signed")) as stage:
        yield stage


@pytest.mark.parametrize("name", ATTACKS)
def test_who_can_write_to_the_bucket_cannot_have_other_dags_run(stage: Stage, name: str) -> None:
    """
    With keys the last good release stays, whatever is tried, and the next good one is taken.
    """
    reason, attack = ATTACKS[name]
    stage.put(attack(stage.scene()))
    ended, _ = stage.sync()
    try:
        stage.assert_refused(stage.trusting, ended, reason)
        # Without keys, content that contradicts its id is not shown either.
        assert_consistent(stage.plain)
    finally:
        stage.recover()
