"""
A writer to the bucket tries to publish other DAGs: with trusted keys every attack fails; without
keys no files are published that contradict their revision.

One attack for each way to be refused. test_signed.py tests the signed bytes, and
test_source_refusals.py truncated objects.
"""

import base64
import json
import os
from collections.abc import Callable, Iterator

import pytest

from s3_sync.release.manifest import split_manifest
from s3_sync.release.names import POINTER_KEY, bundle_key, manifest_key
from s3_sync.release.pointer import Pointer, serialize_pointer, split_pointer
from s3_sync.release.signed import digest_of_manifest, sign_manifest, sign_pointer
from s3_sync.signature import signature_line
from tests.s3_sync.release.attacks import (
    BUCKET,
    HONEST,
    ORIGIN,
    THIEF,
    Attack,
    Facts,
    Objects,
    Scene,
    Stage,
    assert_consistent,
    named,
    signed,
    staged,
)
from tests.support.s3_sync.releases import make_release
from tests.support.s3_sync.shelf import PREFIX

# Not from the honest publisher, but with correct names and digests.
EVIL = make_release({"a.py": b"evil = 1\n"}, origin=ORIGIN._replace(by="mallory"))
EVIL_OBJECTS: Objects = {name: one for name, one in EVIL.objects().items() if name != POINTER_KEY}
# The order of the curve: S plus the order satisfies the same equation as S.
ORDER = 2**252 + 27742317777372353535851937790883648493

Change = Callable[[bytes], bytes]


def evil_pointer(scene: Scene) -> Pointer:
    """Return the pointer that an attacker wants: correct, except for its author."""
    honest = scene.next.pointer
    digest = digest_of_manifest(EVIL.manifest_bytes)
    turn = honest.turn._replace(revision=EVIL.revision)
    return EVIL.pointer._replace(turn=turn, history=honest.history, manifest_sha256=digest)


def evil(make: Callable[[Pointer], bytes], manifest: bytes = EVIL.manifest_bytes) -> Attack:
    """Make the evil release current, with a pointer that `make` serializes."""
    objects = EVIL_OBJECTS | {manifest_key(EVIL.revision): manifest}
    return lambda scene: objects | {POINTER_KEY: make(evil_pointer(scene))}


def beside(join: Callable[[bytes, bytes], bytes]) -> Attack:
    """Join an evil pointer and a signed one."""
    return lambda scene: (
        EVIL_OBJECTS
        | {POINTER_KEY: join(serialize_pointer(evil_pointer(scene)), scene.next.pointer_bytes)}
    )


def pointer(change: Change) -> Attack:
    """Alter the bytes of an honest pointer."""
    return lambda scene: scene.objects(pointer=change(scene.next.pointer_bytes))


def signature_of(data: bytes) -> str:
    return split_pointer(data)[1]


def signed_part(data: bytes) -> bytes:
    return split_pointer(data)[0]


def told(name: str, value: object) -> Attack:
    """Change a value in an honest pointer, and keep its signature."""

    def alter(data: bytes) -> bytes:
        body, signature = split_pointer(data)
        facts = json.loads(body) | {name: value}
        return json.dumps(facts).encode() + b"\n" + signature_line(signature)

    return pointer(alter)


def respelled(change: Callable[[str], str]) -> Attack:
    """Change the text of an honest pointer's signature."""
    return pointer(lambda data: signed_part(data) + signature_line(change(signature_of(data))))


def raw(change: Change) -> Attack:
    """Alter the 64 bytes of an honest pointer's signature."""

    def alter(signature: str) -> str:
        *names, text = signature.split(":")
        return ":".join([*names, base64.b64encode(change(base64.b64decode(text))).decode()])

    return respelled(alter)


def plus_the_order(signature: bytes) -> bytes:
    number = int.from_bytes(signature[32:], "little") + ORDER
    return signature[:32] + number.to_bytes(32, "little")


def elsewhere(bucket: str, prefix: str) -> Attack:
    """Use a pointer that the honest key signed for another place."""
    return lambda scene: scene.objects(
        pointer=signed(scene.next.pointer, bucket=bucket, prefix=prefix)
    )


def manifest(change: Change) -> Attack:
    """Alter the bytes of an honest manifest."""
    return lambda scene: scene.objects(manifest=change(scene.next.manifest_bytes))


def line(change: Callable[[Facts], object]) -> Attack:
    """Change the first line of an honest manifest, and keep its signature."""

    def alter(data: bytes) -> bytes:
        first, _, rest = data.partition(b"\n")
        facts = json.loads(first)
        change(facts)
        return json.dumps(facts).encode() + b"\n" + rest

    return manifest(alter)


def said(name: str, value: object) -> Attack:
    return line(lambda facts: facts.__setitem__(name, value))


def resigned(line: bytes) -> Change:
    """Replace or remove the signature of a manifest."""

    def alter(data: bytes) -> bytes:
        lines, _, at = split_manifest(data)
        return lines + line + data[at:]

    return alter


def other_bundle(scene: Scene) -> Objects:
    named = {"sha256": EVIL.manifest.head.bundle_sha256, "size_bytes": len(EVIL.bundle_bytes)}
    said = line(lambda facts: facts["bundle"].update(named))
    return {bundle_key(EVIL.manifest.head.bundle_sha256): EVIL.bundle_bytes, **said(scene)}


def older(scene: Scene) -> Objects:
    """Restore an older manifest that the honest publisher signed for the same content."""
    old = make_release(scene.files, origin=ORIGIN._replace(by="before"), signer=HONEST.signer)
    return scene.objects(manifest=old.manifest_bytes)


def fork(scene: Scene) -> Objects:
    """Sign a second pointer with the current sequence, as concurrent publishes can do."""
    turn = scene.next.pointer.turn._replace(sequence=scene.good.pointer.turn.sequence)
    return scene.objects(pointer=signed(scene.next.pointer._replace(turn=turn, history=())))


def surrogates(scene: Scene) -> Objects:
    facts = json.loads(signed_part(scene.next.pointer_bytes)) | {"revision": "\ud800\udcff"}
    body = json.dumps(facts).encode() + b"\n"
    return scene.objects(pointer=sign_pointer(body, BUCKET, PREFIX, HONEST.signer))


LATER = "2030-01-01T00:00:00Z"
POINTER = {
    "revision": EVIL.revision, "sequence": 1 << 50, "since": LATER, "history": [],
    "published_by": "mallory",
}  # fmt: skip
MANIFEST = {"created_by": "mallory", "created_at": LATER, "airflow": None}
UNTRUSTED: dict[str, Attack] = {
    "a release that nobody has signed": evil(serialize_pointer),
    "signed by a stranger, all of it": evil(
        lambda one: signed(one, THIEF), sign_manifest(EVIL.manifest_bytes, THIEF.signer)
    ),
    "signed by a stranger who calls himself by the honest key": evil(
        lambda one: signed(one, THIEF).replace(THIEF.key_id.encode(), HONEST.key_id.encode())
    ),
    "something evil before what is signed": beside(lambda ours, theirs: ours + theirs),
    "something evil behind what is signed": beside(lambda ours, theirs: theirs + ours),
    "another release under an old signature": beside(
        lambda ours, theirs: ours + signature_line(signature_of(theirs))
    ),
    "its signature is stripped": pointer(signed_part),
    **{f"another {name} in the pointer": told(name, value) for name, value in POINTER.items()},
    "other white space": pointer(lambda one: one.replace(b"\n  ", b"\n", 1)),
    "two signatures": pointer(lambda one: one + signature_line(signature_of(one))),
    "the signature of its manifest": lambda scene: scene.objects(
        pointer=signed_part(scene.next.pointer_bytes)
        + signature_line(split_manifest(scene.next.manifest_bytes)[1])
    ),
    "signed for another prefix": elsewhere(BUCKET, "dev/"),
    "signed for another bucket": elsewhere("dev-bucket", PREFIX),
    "the line has no end": pointer(lambda one: one[:-1]),
    "a blank line behind it": pointer(lambda one: one + b"\n"),
    "more in the line": pointer(lambda one: one[:-2] + b', "by": "ci"}\n'),
    "garbage for a signature": respelled(lambda _: "x" * 100),
    "a signature that is too long": respelled(lambda _: "A" * 20_000),
    "two signatures in a list": respelled(lambda one: f"{one},{one}"),
    "an algorithm that nobody knows": respelled(lambda one: one.replace("ed25519", "ed25519ph")),
    "a key that nobody knows": respelled(lambda one: one.replace(HONEST.key_id, "0" * 16)),
    "base64 without its end": respelled(lambda one: one.rstrip("=")),
    "base64 with more behind its end": respelled(lambda one: one + "AAAA"),
    "a byte is missing": raw(lambda one: one[:-1]),
    "zeros for a signature": raw(lambda _: bytes(64)),
    "the neutral point for a signature": raw(lambda _: b"\1" + bytes(63)),
    "S plus the order": raw(plus_the_order),
    "something that is no pointer": lambda _: {POINTER_KEY: b"\0\xff"},
    "the manifest's signature is stripped": manifest(resigned(b"")),
    "the manifest has garbage for a signature": manifest(resigned(signature_line("x" * 500))),
    "the manifest is signed by a stranger": manifest(lambda one: sign_manifest(one, THIEF.signer)),
    "the manifest has the pointer's signature": lambda scene: manifest(
        resigned(signature_line(signature_of(scene.next.pointer_bytes)))
    )(scene),
    "the manifest is that of another release": lambda scene: scene.objects(
        manifest=scene.good.manifest_bytes
    ),
    "an old manifest of the same content is put back": older,
    **{f"another {name} in the manifest": said(name, value) for name, value in MANIFEST.items()},
    "the bundle is another": other_bundle,
}
OTHERS: dict[str, tuple[str, Attack]] = {
    "an old pointer is put back": ("release_replayed", lambda scene: {POINTER_KEY: scene.old}),
    "another pointer of the same sequence": ("release_replayed", fork),
    "a signature that is longer than a pointer may be": (
        "release_invalid",
        respelled(lambda _: "A" * 70_000),
    ),
    "a path that leads out, and all of it is signed": ("release_invalid", named("../evil.py")),
    "a path that steers terminals": ("release_invalid", named("\x1b]0;evil\x07/../a.py")),
    "a revision of surrogates": ("release_invalid", surrogates),
    "the manifest is empty": ("release_invalid", manifest(lambda _: b"")),
    "its chunks are others": (
        "release_invalid",
        lambda scene: scene.objects(
            manifest=scene.next.manifest_bytes[: scene.next.pointer.head_bytes] + b"x" * 200
        ),
    ),
    "the pointer is deleted": ("release_missing", lambda _: {POINTER_KEY: None}),
    "the manifest is deleted": ("release_missing", lambda scene: scene.objects(manifest=None)),
    "the bundle is deleted": ("release_missing", lambda scene: scene.objects(bundle=None)),
    "the bundle is swapped": (
        "bundle_corrupt",
        lambda scene: scene.objects(bundle=os.urandom(len(scene.next.bundle_bytes))),
    ),
}
ATTACKS = {name: ("release_untrusted", attack) for name, attack in UNTRUSTED.items()} | OTHERS


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("signed")) as stage:
        yield stage


@pytest.mark.parametrize("name", ATTACKS)
def test_trusted_keys_defeat_attacks_by_a_writer_to_the_bucket(stage: Stage, name: str) -> None:
    """The last good release stays, and the next good one is published."""
    reason, attack = ATTACKS[name]
    stage.put(attack(stage.scene()))
    ended, _ = stage.sync()
    try:
        stage.assert_refused(stage.trusting, ended, reason)
        # Without keys, files that contradict their revision are not published either.
        assert_consistent(stage.plain)
    finally:
        stage.recover()
