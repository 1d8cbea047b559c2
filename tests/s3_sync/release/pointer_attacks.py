"""Attacks on the pointer of a release: on what it says, and on its signature."""

import base64
import hashlib
import json
from collections.abc import Callable

from s3_sync.release.manifest import split_manifest
from s3_sync.release.names import POINTER_KEY, manifest_key
from s3_sync.release.pointer import Pointer, serialize_pointer, split_pointer
from s3_sync.release.signed import sign_manifest
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
    signed,
)
from tests.support.releases import make_release
from tests.support.shelf import PREFIX

# What no publisher has made, but has every name and digest right.
EVIL = make_release({"a.py": b"evil = 1\n"}, origin=ORIGIN._replace(by="mallory"))


def evil_pointer(scene: Scene) -> Pointer:
    """
    The pointer that a thief wants: all is right, except for its author.
    """
    pointer = scene.next.pointer
    turn = pointer.turn._replace(revision=EVIL.revision)
    sizes = (EVIL.pointer.manifest_bytes, EVIL.pointer.head_bytes)
    digest = hashlib.sha256(split_manifest(EVIL.manifest_bytes)[0]).hexdigest()
    return Pointer(turn, *sizes, EVIL.pointer.origin, pointer.history, digest)


def pointer(change: Callable[[bytes], bytes]) -> Attack:
    """Alter the bytes of an honest pointer."""
    return lambda scene: scene.objects(pointer=change(scene.next.pointer_bytes))


def fact(change: Callable[[Facts], object]) -> Attack:
    """Alter what an honest pointer says, and keep its signature."""

    def alter(data: bytes) -> bytes:
        body, signature = split_pointer(data)
        facts = json.loads(body)
        change(facts)
        return json.dumps(facts, indent=2).encode() + b"\n" + signature_line(signature)

    return pointer(alter)


def with_(name: str, value: object) -> Attack:
    return fact(lambda facts: facts.__setitem__(name, value))


def of_manifest(name: str, value: object) -> Attack:
    return fact(lambda facts: facts["manifest"].__setitem__(name, value))


def signature(text: Callable[[str], str]) -> Attack:
    """Let a pointer that names something evil have another signature."""

    def attack(scene: Scene) -> Objects:
        honest = signature_of(scene.next.pointer_bytes)
        data = serialize_pointer(evil_pointer(scene))
        return evil_objects() | {POINTER_KEY: data + signature_line(text(honest))}

    return attack


def evil_objects() -> Objects:
    return {name: body for name, body in EVIL.objects().items() if name != POINTER_KEY}


def evil(make: Callable[[Pointer], bytes], manifest: bytes = EVIL.manifest_bytes) -> Attack:
    """Make something evil current, by a pointer that is made so."""

    def attack(scene: Scene) -> Objects:
        objects = evil_objects() | {manifest_key(EVIL.revision): manifest}
        return objects | {POINTER_KEY: make(evil_pointer(scene))}

    return attack


def signature_of(data: bytes) -> str:
    return split_pointer(data)[1]


def elsewhere(bucket: str, prefix: str) -> Attack:
    """Take a pointer that the honest key has signed for another place."""
    return lambda scene: scene.objects(
        pointer=signed(scene.next.pointer, bucket=bucket, prefix=prefix)
    )


def first_history(change: Callable[[Facts], object]) -> Attack:
    return fact(lambda facts: change(facts["history"][0]))


def duplicate(name: str, value: str) -> Attack:
    return pointer(lambda data: data.replace(b"{", f'{{"{name}": {value},'.encode(), 1))


def fork(scene: Scene) -> Objects:
    """Two publishes at once on a server without conditions: both are signed, one was seen."""
    turn = scene.next.pointer.turn._replace(sequence=scene.good.pointer.turn.sequence)
    return scene.objects(pointer=signed(scene.next.pointer._replace(turn=turn, history=())))


def respelled(change: Callable[[str], str]) -> Attack:
    """Let an honest pointer have its signature spelled otherwise."""

    def alter(data: bytes) -> bytes:
        body, signature = split_pointer(data)
        return body + signature_line(change(signature))

    return pointer(alter)


def raw(change: Callable[[bytes], bytes]) -> Attack:
    """Alter the 64 bytes of an honest pointer's signature."""

    def alter(signature: str) -> str:
        *names, text = signature.split(":")
        return ":".join([*names, base64.b64encode(change(base64.b64decode(text))).decode()])

    return respelled(alter)


def other_s(signature: bytes, change: Callable[[int], int]) -> bytes:
    """The second half of a signature, altered as a number."""
    return change(int.from_bytes(signature[32:], "little")).to_bytes(32, "little")


def message(make: Callable[[bytes, bytes], bytes]) -> Attack:
    """Take what the honest key has signed of an honest pointer in another way."""

    def alter(data: bytes) -> bytes:
        body, _ = split_pointer(data)
        place = b"\0".join([BUCKET.encode(), PREFIX.encode()])
        return body + signature_line(HONEST.signer.sign(make(place, body)))

    return pointer(alter)


ORDER = 2**252 + 27742317777372353535851937790883648493

KEY_ATTACKS: dict[str, tuple[str, Attack]] = {
    name: ("release_untrusted", attack)
    for name, attack in {
        "S plus the order": raw(lambda one: one[:32] + other_s(one, lambda s: s + ORDER)),
        "S is negative": raw(lambda one: one[:32] + other_s(one, lambda s: ORDER - s)),
        "S is zero": raw(lambda one: one[:32] + bytes(32)),
        "R is zero": raw(lambda one: bytes(32) + one[32:]),
        "R is the neutral point": raw(lambda one: b"\1" + bytes(31) + one[32:]),
        "the neutral point for a signature": raw(lambda _: b"\1" + bytes(63)),
        "R has the other sign": raw(lambda one: one[:31] + bytes([one[31] ^ 0x80]) + one[32:]),
        "R and S are swapped": raw(lambda one: one[32:] + one[:32]),
        "all bits are set": raw(lambda _: b"\xff" * 64),
        "a byte is missing": raw(lambda one: one[:-1]),
        "a byte too many": raw(lambda one: one + b"\0"),
        "the signature twice": raw(lambda one: one * 2),
        "only R": raw(lambda one: one[:32]),
        "no bytes": raw(lambda _: b""),
        "the last bit is another": raw(lambda one: one[:-1] + bytes([one[-1] ^ 1])),
        "base64 without its end": respelled(lambda one: one.rstrip("=")),
        "base64 with more behind its end": respelled(lambda one: one + "AAAA"),
        "base64 with a letter of another alphabet": respelled(lambda one: one[:-4] + "-_=="),
        "hexadecimal digits": respelled(
            lambda one: ":".join([*one.split(":")[:2], base64.b64decode(one.split(":")[2]).hex()])
        ),
        "the algorithm in capitals": respelled(lambda one: one.replace("ed25519", "ED25519")),
        "the algorithm with a context": respelled(lambda one: one.replace("ed", "ctx-ed", 1)),
        "the algorithm of a hash": respelled(lambda one: one.replace("ed25519", "ed25519ph")),
        "a curve that is older": respelled(lambda one: one.replace("ed25519", "ecdsa-p256")),
        "no algorithm": respelled(lambda one: one.partition(":")[2]),
        "an empty algorithm": respelled(lambda one: one.replace("ed25519", "")),
        "the key in capitals": respelled(
            lambda one: one.replace(HONEST.key_id, HONEST.key_id.upper() + "A")
        ),
        "half of the key's id": respelled(lambda one: one.replace(HONEST.key_id[8:], "")),
        "no key": respelled(lambda one: one.replace(HONEST.key_id, "")),
        "a path for a key": respelled(lambda one: one.replace(HONEST.key_id, "../../../thief")),
        "the key of a thief": respelled(lambda one: one.replace(HONEST.key_id, THIEF.key_id)),
        "two signatures in one": respelled(lambda one: f"{one}:{one}"),
        "two signatures in a list": respelled(lambda one: f"{one},{one}"),
        "signed without what it is": message(lambda place, body: place + b"\0" + body),
        "signed without its place": message(lambda _, body: b"s3-sync pointer\0" + body),
        "signed alone": message(lambda _, body: body),
        "signed without what joins": message(
            lambda place, body: b"s3-sync pointer" + place.replace(b"\0", b"") + body
        ),
        "signed with other words": message(
            lambda place, body: b"s3-sync  pointer\0" + place + b"\0" + body
        ),
        "signed without its line feed": message(
            lambda place, body: b"s3-sync pointer\0" + place + b"\0" + body.rstrip(b"\n")
        ),
        "its digest is signed": message(
            lambda place, body: hashlib.sha256(b"s3-sync pointer\0" + place + b"\0" + body).digest()
        ),
        "signed for a prefix without its slash": elsewhere(BUCKET, PREFIX.rstrip("/")),
        "signed for a prefix with another before it": elsewhere(BUCKET, f"/{PREFIX}"),
        "signed for a bucket in capitals": elsewhere(BUCKET.upper(), PREFIX),
        "signed for no bucket": elsewhere("", PREFIX),
        "the line has no end": pointer(lambda one: one[:-1]),
        "the line ends as elsewhere": pointer(lambda one: one[:-1] + b"\r\n"),
        "a blank line behind it": pointer(lambda one: one + b"\n"),
        "a blank in the line": pointer(lambda one: one.replace(b'"signature": ', b'"signature":')),
        "more in the line": pointer(lambda one: one[:-2] + b', "by": "ci"}\n'),
        "letters of the line are escaped": pointer(
            lambda one: one.replace(b'": "ed25519', b'": "\\u0065d25519')
        ),
        "a NUL behind it": pointer(lambda one: one + b"\0"),
        "a line of a thief behind it": pointer(
            lambda one: one + signature_line(THIEF.signer.sign(one))
        ),
        "a line of a thief before it": pointer(
            lambda one: split_pointer(one)[0]
            + signature_line(THIEF.signer.sign(one))
            + signature_line(signature_of(one))
        ),
    }.items()
}  # fmt: skip

POINTER_ATTACKS: dict[str, tuple[str, Attack]] = {
    "a release that nobody has signed": ("release_untrusted", evil(serialize_pointer)),
    "its signature is stripped": ("release_untrusted", pointer(lambda one: split_pointer(one)[0])),
    "another release under an old signature": ("release_untrusted", signature(lambda old: old)),
    "another revision": ("release_untrusted", with_("revision", EVIL.revision)),
    "another sequence": ("release_untrusted", with_("sequence", 1 << 50)),
    "another time": ("release_untrusted", with_("since", "2030-01-01T00:00:00Z")),
    "another length of the manifest": ("release_untrusted", of_manifest("size_bytes", 12345)),
    "another length of its head": ("release_untrusted", of_manifest("head_bytes", 12)),
    "another digest of the manifest": ("release_untrusted", of_manifest("sha256", "0" * 64)),
    "no digest of the manifest": (
        "release_untrusted",
        fact(lambda facts: facts["manifest"].pop("sha256")),
    ),
    "another publisher": ("release_untrusted", with_("published_by", "mallory")),
    "another commit": ("release_untrusted", with_("git", {"commit": "6" * 40})),
    "another run of the CI": ("release_untrusted", with_("ci_url", "https://evil.example.com")),
    "a history that was emptied": ("release_untrusted", with_("history", [])),
    "another release in the history": (
        "release_untrusted",
        first_history(lambda turn: turn.__setitem__("revision", EVIL.revision)),
    ),
    "another sequence in the history": (
        "release_untrusted",
        first_history(lambda turn: turn.__setitem__("sequence", 1)),
    ),
    "another time in the history": (
        "release_untrusted",
        first_history(lambda turn: turn.__setitem__("since", "2020-01-01T00:00:00Z")),
    ),
    "a turn that restores another": ("release_untrusted", with_("restores", 1)),
    "another format": ("release_untrusted", with_("format", 3)),
    "a field that nobody knows": ("release_untrusted", with_("note", "x")),
    "other white space": ("release_untrusted", pointer(lambda one: one.replace(b"\n  ", b"\n", 1))),
    "line endings of another system": (
        "release_untrusted",
        pointer(lambda one: one.replace(b"\n", b"\r\n")),
    ),
    "a byte order mark": ("release_untrusted", pointer(lambda one: b"\xef\xbb\xbf" + one)),
    "a name twice in it": ("release_untrusted", duplicate("revision", f'"{EVIL.revision}"')),
    "the signature as a field": (
        "release_untrusted",
        pointer(
            lambda one: one.replace(
                b"{", b'{"signature": "%s",' % split_pointer(one)[1].encode(), 1
            )
        ),
    ),
    "something evil before what is signed": (
        "release_untrusted",
        lambda scene: (
            evil_objects()
            | {POINTER_KEY: serialize_pointer(evil_pointer(scene)) + scene.next.pointer_bytes}
        ),
    ),
    "something evil behind what is signed": (
        "release_untrusted",
        lambda scene: (
            evil_objects()
            | {POINTER_KEY: scene.next.pointer_bytes + serialize_pointer(evil_pointer(scene))}
        ),
    ),
    "two signatures": (
        "release_untrusted",
        pointer(lambda one: one + signature_line(signature_of(one))),
    ),
    "signed by a stranger": ("release_untrusted", evil(lambda one: signed(one, THIEF))),
    "signed by a stranger, all of it": (
        "release_untrusted",
        evil(lambda one: signed(one, THIEF), sign_manifest(EVIL.manifest_bytes, THIEF.signer)),
    ),
    "signed by a stranger who calls himself by the honest key": (
        "release_untrusted",
        evil(lambda one: signed(one, THIEF).replace(THIEF.key_id.encode(), HONEST.key_id.encode())),
    ),
    "signed for another prefix": ("release_untrusted", elsewhere(BUCKET, "dev/")),
    "signed for a prefix below": ("release_untrusted", elsewhere(BUCKET, f"{PREFIX}dev/")),
    "signed for the whole bucket": ("release_untrusted", elsewhere(BUCKET, "")),
    "signed for another bucket": ("release_untrusted", elsewhere("dev-bucket", PREFIX)),
    "signed for a place that reads the same": (
        "release_untrusted",
        elsewhere(f"{BUCKET}\0{PREFIX}"[:-2], PREFIX[-2:]),
    ),
    "signed as a manifest": (
        "release_untrusted",
        signature(lambda _: HONEST.signer.sign(b"s3-sync manifest\0" + b"x")),
    ),
    "the signature of its manifest": (
        "release_untrusted",
        lambda scene: scene.objects(
            pointer=serialize_pointer(scene.next.pointer)
            + signature_line(split_manifest(scene.next.manifest_bytes)[1])
        ),
    ),
    "an empty signature": ("release_untrusted", signature(lambda _: "")),
    "garbage for a signature": ("release_untrusted", signature(lambda _: "x" * 100)),
    "zeros for a signature": (
        "release_untrusted",
        signature(lambda _: f"ed25519:{HONEST.key_id}:{'A' * 86}=="),
    ),
    "half a signature": ("release_untrusted", signature(lambda old: old[:-40])),
    "a long signature": (
        "release_untrusted",
        signature(lambda _: f"ed25519:{HONEST.key_id}:{'A' * 7000}"),
    ),
    "a signature that is too long": ("release_untrusted", signature(lambda _: "A" * 20_000)),
    "a signature that is longer than a pointer may be": (
        "release_invalid",
        signature(lambda _: "A" * 70_000),
    ),
    "an algorithm that nobody knows": (
        "release_untrusted",
        signature(lambda old: old.replace("ed25519", "none")),
    ),
    "a key that nobody knows": (
        "release_untrusted",
        signature(lambda old: old.replace(HONEST.key_id, "0" * 16)),
    ),
    "an old pointer is put back": ("release_replayed", lambda scene: {POINTER_KEY: scene.old}),
    "another pointer of the same sequence": ("release_replayed", fork),
    "something that is no pointer": ("release_untrusted", lambda _: {POINTER_KEY: b"\0\xff"}),
    "the pointer is deleted": ("release_missing", lambda _: {POINTER_KEY: None}),
}
