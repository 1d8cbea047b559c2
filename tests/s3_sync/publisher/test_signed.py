"""Publishers that sign: signatures, trusted keys, and the state after each write."""

import time
from collections.abc import Mapping

import pytest

from s3_sync.publisher.airflow.check import Passed
from s3_sync.publisher.catalog import find_release
from s3_sync.publisher.progress import Progress
from s3_sync.publisher.promote import Promotion, promote
from s3_sync.publisher.prune import prune
from s3_sync.publisher.rollback import Rollback, roll_back
from s3_sync.publisher.store import Store
from s3_sync.release.facts import Origin
from s3_sync.release.manifest import parse_manifest, split_manifest
from s3_sync.release.names import POINTER_KEY, bundle_key, manifest_key
from s3_sync.release.pointer import Pointer, parse_pointer, serialize_pointer
from s3_sync.release.signed import (
    check_named,
    sign_manifest,
    sign_pointer,
    signer_of_manifest,
    signer_of_pointer,
)
from s3_sync.settings import load_settings
from s3_sync.signature import Keys, PublisherKeys, Untrusted
from tests.runtime.recording import Log
from tests.s3_sync.bucket import CHECKED, A, B, Bucket
from tests.s3_sync.failing import failure
from tests.support.raising import raised
from tests.support.s3_sync.publishing import PREFIX
from tests.support.s3_sync.releases import make_release
from tests.support.s3_sync.signing import Key
from tests.support.waiting import wait_until

KEY, OTHER, THIEF = Key(), Key(), Key()
BOTH = Keys({**KEY.signer.keys.by_id, **OTHER.signer.keys.by_id})
WHO = Origin(by="grace", ci_url="https://ci/7")


def sign_with(bucket: Bucket, key: Key, keys: Keys | None = None) -> None:
    """Make the next publisher sign with a key, and trust that key or the given ones."""
    bucket.store.signer, bucket.store.keys = key.signer, keys or key.signer.keys


@pytest.fixture
def signed(bucket: Bucket) -> Bucket:
    """A bucket whose publisher signs."""
    sign_with(bucket, KEY)
    return bucket


def manifest_in(bucket: Bucket, revision: str) -> bytes:
    return bucket.bodies()[PREFIX + manifest_key(revision)]


def read(bodies: Mapping[str, bytes], keys: Keys = BOTH) -> tuple[str, str]:
    """
    Read the current release like a pod with trusted keys; return the keys of pointer and manifest.

    Raises:
        Untrusted: A pod would refuse it.
    """
    data = bodies[PREFIX + POINTER_KEY]
    by = signer_of_pointer(data, "dags-bucket", PREFIX, keys)
    pointer = parse_pointer(data)
    manifest = bodies[PREFIX + manifest_key(pointer.revision)]
    made_by = signer_of_manifest(manifest, keys)
    check_named(manifest, pointer.manifest_sha256)
    bundle = parse_manifest(manifest).head.bundle_sha256
    assert PREFIX + bundle_key(bundle) in bodies
    return by, made_by


def watch(bucket: Bucket) -> list[str]:
    """Return a list that collects the result for a pod after each write: revision or error."""
    found: list[str] = []

    def look() -> None:
        try:
            read(bucket.bodies())
            found.append(bucket.pointer().revision)
        except Untrusted as error:
            found.append(str(error))

    bucket.server.on_write = look
    return found


def wait_for_a_later_second(pointer: Pointer) -> None:
    """Only then the time, from which a sequence is made, is higher than that of this pointer."""
    wait_until(lambda: int(time.time()) > pointer.turn.sequence, "a later second")


# --- publish


def test_publish_signs_pointer_and_manifest(signed: Bucket) -> None:
    began = int(time.time())
    first = signed.publish(A)
    assert (KEY.key_id, KEY.key_id) == read(signed.bodies())
    assert began <= signed.pointer().turn.sequence <= time.time()
    sequence = signed.pointer().turn.sequence
    signed.publish(B)

    assert (KEY.key_id, KEY.key_id) == read(signed.bodies())
    assert sequence < signed.pointer().turn.sequence
    assert (first.revision,) == signed.history()
    assert "unchanged" == signed.publish(B).result


def test_the_first_signed_publish_drops_the_unsigned_history(bucket: Bucket, log: Log) -> None:
    bucket.publish(B)
    unsigned = bucket.publish(A)
    sign_with(bucket, KEY)

    signed = bucket.publish(A)

    assert ("published", unsigned.revision) == (signed.result, signed.revision)
    assert (KEY.key_id, KEY.key_id) == read(bucket.bodies())
    assert () == bucket.history()
    (warned,) = log.events("pointer_untrusted")
    assert "it is not signed" == warned["error"]
    assert "unchanged" == bucket.publish(A).result


@pytest.mark.parametrize("deed", ["publish", "rollback"])
def test_writes_a_higher_sequence_after_a_restored_pointer(signed: Bucket, deed: str) -> None:
    """A publisher keeps no state, but pods have seen the pointers that followed the old one."""
    signed.publish_all(B, A)
    pointer = signed.pointer()
    turns = [turn._replace(sequence=n) for n, turn in zip((2, 1), pointer.turns(), strict=True)]
    old = serialize_pointer(pointer._replace(turn=turns[0], history=tuple(turns[1:])))
    put_back = sign_pointer(old, "dags-bucket", PREFIX, KEY.signer)
    signed.server.put(PREFIX + POINTER_KEY, put_back)
    wait_for_a_later_second(pointer)

    if deed == "publish":
        signed.publish(B)
    else:
        back(signed)

    assert pointer.turn.sequence < signed.pointer().turn.sequence


def test_writes_a_higher_sequence_after_the_pointer_was_deleted(signed: Bucket) -> None:
    signed.publish(A)
    pointer = signed.pointer()
    signed.server.delete(PREFIX + POINTER_KEY)
    wait_for_a_later_second(pointer)

    signed.publish(B)

    assert pointer.turn.sequence < signed.pointer().turn.sequence


def test_replaces_an_old_manifest_that_was_restored(signed: Bucket) -> None:
    revision = signed.publish(A).revision
    data = manifest_in(signed, revision)
    old = sign_manifest(data.replace(b'"created_by": "ada"', b'"created_by": "bob"'), KEY.signer)
    signed.server.put(PREFIX + manifest_key(revision), old)
    raised(Untrusted, read, signed.bodies())

    assert "published" == signed.publish(A).result

    assert (KEY.key_id, KEY.key_id) == read(signed.bodies())


def test_does_not_sign_a_forged_verdict(signed: Bucket) -> None:
    forged = make_release(A, checked=CHECKED._replace(dags=99))
    signed.put(forged)
    signed.passed = Passed(CHECKED, ())

    signed.publish(A)

    head = parse_manifest(manifest_in(signed, forged.revision)).head
    assert head.checked == CHECKED
    assert (KEY.key_id, KEY.key_id) == read(signed.bodies())


def test_does_not_sign_a_forged_history(signed: Bucket, log: Log) -> None:
    signed.publish(A)
    evil = make_release({"a.py": b"evil = 1\n"}, signer=THIEF.signer)
    pointer = signed.pointer()
    turns = (pointer.turn._replace(revision=evil.revision, sequence=1),)
    forged = serialize_pointer(pointer._replace(history=turns))
    signature = signed.bodies()[PREFIX + POINTER_KEY].splitlines(keepends=True)[-1]
    signed.server.put(PREFIX + POINTER_KEY, forged + signature)

    assert "release_untrusted" == failure(back, signed).reason
    pruned = failure(prune, signed.store, (), 0, 0.0, is_dry=False)
    assert "release_untrusted" == pruned.reason
    signed.publish(B)

    assert () == signed.history()
    assert (KEY.key_id, KEY.key_id) == read(signed.bodies())
    (warned,) = log.events("pointer_untrusted")
    assert "signed other content" in warned["error"]


@pytest.mark.parametrize("deed", ["publish", "rollback", "promote"])
def test_warns_once_if_a_publisher_without_a_key_drops_the_signature(
    signed: Bucket, log: Log, deed: str
) -> None:
    places = Places(signed)
    signed.publish_all(B, A)
    places.dev.publish(B)
    signed.store.signer = signed.store.keys = None
    {"publish": lambda: signed.publish(B), "rollback": lambda: back(signed),
     "promote": places.promote}[deed]()  # fmt: skip

    (warned,) = log.events("signature_dropped")
    current = signed.pointer().revision[:12]
    assert f"`s3-sync rollback {current} --sign-key FILE`" in warned["advice"]
    signed.publish(A)
    assert 1 == len(log.events("signature_dropped"))


# --- key rotation, and the state after each write


def test_signs_the_current_release_with_the_next_key_without_a_gap(signed: Bucket) -> None:
    first = signed.publish(B)
    second = signed.publish(A)
    before = split_manifest(manifest_in(signed, second.revision))
    sequence = signed.pointer().turn.sequence
    sign_with(signed, OTHER, BOTH)
    found = watch(signed)

    again = signed.publish(A)

    assert "published" == again.result
    assert (OTHER.key_id, OTHER.key_id) == read(signed.bodies(), OTHER.signer.keys)
    after = split_manifest(manifest_in(signed, second.revision))
    assert before[0] == after[0] and before[1] != after[1]
    assert (first.revision,) == signed.history()
    assert sequence < signed.pointer().turn.sequence
    assert {second.revision} == set(found), "at every moment it would be taken"
    assert "unchanged" == signed.publish(A).result


def test_the_current_release_is_trusted_after_each_write_of_a_publish(signed: Bucket) -> None:
    old = signed.publish(A).revision
    found = watch(signed)

    new = signed.publish(B).revision
    signed.publish(A)

    assert {old, new} == set(found)
    assert found.index(new) >= 3, "the pointer comes last"


def test_a_publisher_that_does_not_trust_the_old_key_drops_the_history(signed: Bucket) -> None:
    signed.publish(B)
    revision = signed.publish(A).revision
    sign_with(signed, OTHER)

    assert "published" == signed.publish(A).result

    assert (OTHER.key_id, OTHER.key_id) == read(signed.bodies(), OTHER.signer.keys)
    assert (revision, ()) == (signed.pointer().revision, signed.history())


# --- rollback, pin, prune, diff


def back(bucket: Bucket, revision: str | None = None) -> Rollback:
    return roll_back(bucket.store, revision, WHO, is_dry=False)


def test_rollback_signs_the_pointer(signed: Bucket) -> None:
    first, second = signed.publish(A).revision, signed.publish(B).revision
    found = watch(signed)

    back(signed)

    assert first == signed.pointer().revision
    assert (KEY.key_id, KEY.key_id) == read(signed.bodies())
    assert {first, second} == set(found), "a pod would take the release after each write"


def test_refuses_a_rollback_to_an_untrusted_release(bucket: Bucket) -> None:
    first = bucket.publish(A).revision
    sign_with(bucket, KEY)
    current = bucket.publish(B).revision

    error = failure(back, bucket, first)

    assert "release_untrusted" == error.reason
    assert f"{manifest_key(first)} is refused: it is not signed" in error.message
    assert current == bucket.pointer().revision
    assert "release_untrusted" == failure(find_release, bucket.store, first).reason


def test_a_rollback_to_a_revision_replaces_an_untrusted_pointer(signed: Bucket, log: Log) -> None:
    revision = signed.publish(A).revision
    signed.put(make_release(B))

    after = back(signed, revision).after

    assert ((), (KEY.key_id, KEY.key_id)) == (after.history, read(signed.bodies()))
    assert 1 == len(log.events("pointer_untrusted"))


@pytest.mark.parametrize("signer", [None, OTHER], ids=["unsigned", "another key"])
def test_a_rollback_to_the_current_release_signs_its_pointer(
    signed: Bucket, signer: Key | None
) -> None:
    """The advice after a rollback without the key, or with one that pods do not trust."""
    first, second = signed.publish(A).revision, signed.publish(B).revision
    signed.store.signer, signed.store.keys = signer.signer if signer else None, None
    back(signed, first)
    sign_with(signed, KEY, BOTH)

    back(signed, first)

    assert (KEY.key_id, KEY.key_id) == read(signed.bodies())
    assert first == signed.pointer().revision
    assert ((second, first) if signer else ()) == signed.history()
    signed.server.forget()
    back(signed, first)
    assert [] == signed.writes()


def test_publish_fails_if_an_unsigned_pointer_is_written_meanwhile(signed: Bucket) -> None:
    signed.publish(A)
    signed.judge = lambda: signed.put(make_release(B))

    found = failure(signed.publish, B)

    assert "publish_conflict" == found.reason
    assert "replaced by a pointer that is not trusted (it is not signed)" in found.message


# --- promote


class Places:
    """`dev/`, signed with one key, and the prefix of the bucket, signed with another."""

    def __init__(self, prd: Bucket) -> None:
        self.prd = prd
        given = {"AWS_BUCKET": prd.server.bucket, "KEY_PATH": "dev", "DEST_PATH": "/nowhere"}
        settings = load_settings(given)[0]
        self.dev = Bucket(prd.server, prd.folder, settings)
        sign_with(self.dev, OTHER)
        sign_with(prd, KEY, BOTH)
        self.source = Store(settings, trust=PublisherKeys(BOTH))

    def promote(self) -> Promotion:
        return promote(
            self.source, self.prd.store, None, WHO, lambda *_: None, Progress(), is_dry=False
        )


@pytest.fixture
def places(bucket: Bucket) -> Places:
    return Places(bucket)


def test_promote_keeps_the_signature_of_the_manifest_and_signs_the_pointer(places: Places) -> None:
    revision = places.dev.publish(A).revision
    places.promote()
    found = watch(places.prd)
    places.dev.publish(B)

    assert "promoted" == places.promote().result
    assert "unchanged" == places.promote().result

    assert (KEY.key_id, OTHER.key_id) == read(places.prd.bodies())
    bodies = places.prd.bodies()
    assert bodies[f"dev/{manifest_key(revision)}"] == bodies[PREFIX + manifest_key(revision)]
    dev = bodies[f"dev/{POINTER_KEY}"]
    raised(Untrusted, signer_of_pointer, dev, "dags-bucket", PREFIX, BOTH)
    assert {revision, places.prd.pointer().revision} == set(found)


@pytest.mark.parametrize("part", ["pointer", "manifest"])
def test_does_not_promote_an_untrusted_release(places: Places, part: str) -> None:
    revision = places.dev.publish(A).revision
    key = {"pointer": POINTER_KEY, "manifest": manifest_key(revision)}[part]
    stored = places.prd.bodies()[f"dev/{key}"]
    places.prd.server.put(f"dev/{key}", stored.replace(OTHER.key_id.encode(), b"0" * 16))

    error = failure(places.promote)

    assert "release_untrusted" == error.reason
    assert f"dev/{key} is refused: it is signed by 0000000000000000" in error.message
    assert PREFIX + POINTER_KEY not in places.prd.bodies()


def test_promote_replaces_an_untrusted_manifest_in_the_target(places: Places) -> None:
    revision = places.dev.publish(A).revision
    forged = make_release(A, checked=CHECKED)
    for name, body in forged.objects().items():
        if name != POINTER_KEY:
            places.prd.server.put(PREFIX + name, sign_manifest(body, THIEF.signer)
                                  if name == manifest_key(revision) else body)  # fmt: skip

    places.promote()

    assert (KEY.key_id, OTHER.key_id) == read(places.prd.bodies())
