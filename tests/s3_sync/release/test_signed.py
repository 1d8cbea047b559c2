"""Signed releases, cycle by cycle: required signatures, remembered turns, changed keys."""

import base64
import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from s3_sync.release.names import POINTER_KEY, manifest_key
from s3_sync.release.pointer import Turn, serialize_pointer
from s3_sync.release.signed import sign_pointer
from s3_sync.release.source import SLACK_BYTES, ReleaseSource
from tests.runtime.recording import Log
from tests.s3_sync.process import Process
from tests.s3_sync.release.following import MANY
from tests.support.aws.fake_s3 import FakeS3
from tests.support.s3_sync.releases import AT, make_release
from tests.support.s3_sync.shelf import PREFIX, RELEASE, Shelf, is_manifest, is_pointer
from tests.support.s3_sync.signing import Key, write_keys

FILES = {f"pkg{n % 3}/m{n}.py": f"x = {n}\n".encode() * 30 for n in range(12)}
KEY, OTHER = Key(), Key()
FOLLOWING = {"KEY_PATH": "dags", **RELEASE}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The folder of trusted keys, with one key."""
    return write_keys(tmp_path / "keys", KEY)


@pytest.fixture
def shelf(s3: FakeS3) -> Shelf:
    """A shelf whose publisher signs."""
    shelf = Shelf(s3)
    shelf.signer = KEY.signer
    return shelf


@pytest.fixture
def trusting(keys: Path) -> dict[str, str]:
    return FOLLOWING | {"S3_SYNC_TRUSTED_KEYS": str(keys)}


def seen(process: Process) -> dict[str, dict[str, dict[str, object]]]:
    found: dict[str, dict[str, dict[str, object]]] = json.loads(
        (process.folder / ".s3-sync/seen.json").read_text()
    )
    return found


def pointer_of(shelf: Shelf) -> bytes:
    assert shelf.current is not None
    return shelf.current.pointer_bytes


# --- the format, as a second implementation reads it


def test_signatures_match_the_reference(s3: FakeS3, shelf: Shelf) -> None:
    """Verified by hand, as docs/reference/release-format.md describes."""
    release = shelf.publish(FILES)
    public = KEY.signer.keys.by_id[KEY.key_id]

    def check(message: bytes, line: bytes) -> None:
        algorithm, key_id, text = json.loads(line)["signature"].split(":")
        assert ("ed25519", hashlib.sha256(public).hexdigest()[:16]) == (algorithm, key_id)
        Ed25519PublicKey.from_public_bytes(public).verify(base64.b64decode(text), message)

    *lines, last = pointer_of(shelf).splitlines(keepends=True)
    body = b"".join(lines)
    check(b"s3-sync pointer\0" + s3.bucket.encode() + b"\0" + PREFIX.encode() + b"\0" + body, last)
    first, second, third, _ = release.manifest_bytes.split(b"\n", 3)
    check(b"s3-sync manifest\0" + first + b"\n" + second + b"\n", third)
    digest = hashlib.sha256(first + b"\n" + second + b"\n").hexdigest()
    assert digest == json.loads(body)["manifest"]["sha256"]


# --- requests and bytes


def test_a_signed_release_needs_no_additional_request(
    s3: FakeS3, shelf: Shelf, process: Process, trusting: dict[str, str]
) -> None:
    shelf.publish(MANY)
    process.run(trusting)
    assert [1, 1, 3] == [len(s3.seen(is_pointer)), len(s3.seen(is_manifest)), len(s3.seen())]
    files = {**MANY, "team3/dag_0003.py": b"other\n"}
    shelf.publish(files)
    s3.forget()
    process.cycle()

    assert [1, 2, 4] == [len(s3.seen(is_pointer)), len(s3.seen(is_manifest)), len(s3.seen())]
    assert files == process.shown
    s3.forget()
    assert "unchanged" == process.cycle().result
    assert 1 == len(s3.seen())


def test_verifies_the_head_of_a_manifest_that_is_read_in_ranges(
    s3: FakeS3, shelf: Shelf, process: Process, trusting: dict[str, str]
) -> None:
    shelf.publish(MANY)
    process.run(trusting)
    release = shelf.publish({**MANY, "team3/dag_0003.py": b"other\n"})
    forged = release.manifest_bytes.replace(b'"created_by": "tests"', b'"created_by": "thief"')
    assert forged != release.manifest_bytes
    shelf.put(manifest_key(release.revision), forged)

    assert "release_untrusted" == process.fail().reason
    assert MANY == process.shown
    shelf.restore()
    assert "changed" == process.cycle().result


def test_reads_a_manifest_only_up_to_the_size_in_its_signed_pointer(
    s3: FakeS3, shelf: Shelf, process: Process, trusting: dict[str, str]
) -> None:
    """A writer to the bucket cannot make pods read objects that do not fit into memory."""
    shelf.publish(FILES)
    process.run(trusting)
    release = shelf.publish({**FILES, "new.py": b"new\n"})
    shelf.put(manifest_key(release.revision), release.manifest_bytes + b"x" * 5_000_000)

    limit = len(release.manifest_bytes) + SLACK_BYTES
    assert f"more than {limit} bytes" in process.fail().message
    assert FILES == process.shown
    shelf.restore()
    assert "changed" == process.cycle().result


# --- trusted keys


def test_the_error_shows_the_object_and_the_key_that_signed_it(
    shelf: Shelf, process: Process, trusting: dict[str, str]
) -> None:
    shelf.signer = OTHER.signer
    release = shelf.publish(FILES)
    process.start(trusting)
    error = process.fail()
    assert f"dags/current.json is refused: it is signed by {OTHER.key_id}" in error.message

    assert shelf.current is not None
    data = serialize_pointer(shelf.current.pointer)
    shelf.put(POINTER_KEY, sign_pointer(data, "dags-bucket", PREFIX, KEY.signer))
    error = process.fail()
    name = manifest_key(release.revision)
    assert f"dags/{name} is refused: it is signed by {OTHER.key_id}" in error.message
    assert not process.is_ready


def test_accepts_manifest_and_pointer_signed_with_different_keys(
    shelf: Shelf, process: Process, trusting: dict[str, str], keys: Path
) -> None:
    """A promotion creates such a release."""
    write_keys(keys, KEY, OTHER)
    shelf.publish(FILES, signer=OTHER.signer)

    assert "changed" == process.run(trusting).result
    release = process.details["release"]
    assert isinstance(release, dict) and OTHER.key_id == release["signed_by"]


def test_the_status_marks_a_signature_that_was_not_verified(shelf: Shelf, process: Process) -> None:
    shelf.publish(FILES)
    process.run(FOLLOWING)
    signed = process.details["release"]
    shelf.signer = None
    shelf.publish({"a.py": b""})
    process.cycle()
    unsigned = process.details["release"]

    assert isinstance(signed, dict) and isinstance(unsigned, dict)
    assert f"{KEY.key_id} (not verified)" == signed["signed_by"]
    assert "signed_by" not in unsigned
    assert not (process.folder / ".s3-sync/seen.json").exists()


def test_accepts_a_refused_release_after_its_key_was_added(
    shelf: Shelf, process: Process, trusting: dict[str, str], keys: Path
) -> None:
    shelf.publish({"a.py": b"a = 1\n"})
    process.run(trusting)
    shelf.signer = OTHER.signer
    shelf.publish(FILES)
    process.fail()

    write_keys(keys, KEY, OTHER)

    assert "changed" == process.cycle().result
    assert FILES == process.shown


@pytest.mark.parametrize("pin", [False, True], ids=["pointer", "pin"])
def test_keeps_the_published_files_after_their_key_was_removed(
    shelf: Shelf, process: Process, trusting: dict[str, str], keys: Path, pin: bool
) -> None:
    release = shelf.publish(FILES)
    process.run(trusting | ({"S3_SYNC_REVISION": release.revision} if pin else {}))

    write_keys(keys, OTHER)

    assert "release_untrusted" == process.fail().reason
    assert FILES == process.shown and process.is_ready
    write_keys(keys, OTHER, KEY)
    assert "unchanged" == process.cycle().result


def test_cycles_fail_while_there_is_no_trusted_key(
    shelf: Shelf, process: Process, trusting: dict[str, str], keys: Path
) -> None:
    release = shelf.publish({"a.py": b"a = 1\n"})
    process.run(trusting)
    source = process._running._source
    assert isinstance(source, ReleaseSource) and source.vouches_for(release.revision)
    write_keys(keys)
    shelf.signer = None
    shelf.publish({"a.py": b"evil = 1\n"})

    for _ in range(2):
        error = process.fail()
        assert "trusted_keys_invalid" == error.reason
        assert str(keys) in error.message
        assert {"a.py": b"a = 1\n"} == process.shown and process.is_ready
    assert not source.vouches_for(release.revision)  # on request, either
    write_keys(keys, KEY)
    assert "release_untrusted" == process.fail().reason


# --- pins and fallbacks


def test_verifies_the_manifest_of_a_pinned_release(
    shelf: Shelf, process: Process, trusting: dict[str, str]
) -> None:
    release = shelf.publish(FILES)
    unsigned = make_release(FILES)
    shelf.put(manifest_key(release.revision), unsigned.manifest_bytes)
    pinned = trusting | {"S3_SYNC_REVISION": release.revision}
    process.start(pinned)
    error = process.fail()
    assert "release_untrusted" == error.reason and "it is not signed" in error.message
    assert not process.is_ready

    shelf.put(manifest_key(release.revision), release.manifest_bytes)
    assert "changed" == process.cycle().result
    assert not (process.folder / ".s3-sync/seen.json").exists()


def test_falls_back_only_to_a_signed_release(
    shelf: Shelf, process: Process, trusting: dict[str, str], log: Log
) -> None:
    oldest = shelf.publish({"a.py": b"a = 1\n"})
    forged = shelf.publish({"a.py": b"a = 2\n"})
    shelf.publish({"a.py": b"def broken(:\n"})
    unsigned = make_release({"a.py": b"a = 2\n"})
    shelf.put(manifest_key(forged.revision), unsigned.manifest_bytes)

    process.run(trusting | {"S3_SYNC_GATE": "syntax", "S3_SYNC_LAYOUT": "snapshot"})

    assert {"a.py": b"a = 1\n"} == process.shown
    (fallback,) = log.events("gate_fallback")
    assert oldest.revision == fallback["name"]


# --- remembered turns


def test_refuses_an_old_pointer_even_after_a_restart(
    shelf: Shelf, process: Process, trusting: dict[str, str]
) -> None:
    shelf.publish({"a.py": b"a = 1\n"})
    old = pointer_of(shelf)
    process.run(trusting)
    last = shelf.publish({"a.py": b"a = 2\n"})
    process.cycle()
    shelf.put(POINTER_KEY, old)

    for _ in range(2):
        error = process.fail()
        assert "release_replayed" == error.reason
        assert "its sequence is 1, but 2 was already seen here" in error.message
        assert {"a.py": b"a = 2\n"} == process.shown and process.is_ready
        process.restart(trusting)
    here = {KEY.key_id: {"sequence": 2, "revision": last.revision}}
    assert {"s3://dags-bucket/dags/": here} == seen(process)
    shelf.publish({"a.py": b"a = 3\n"})
    assert "changed" == process.cycle().result


def test_remembers_a_pointer_whose_release_could_not_be_read(
    shelf: Shelf, process: Process, trusting: dict[str, str]
) -> None:
    shelf.publish({"a.py": b"a = 1\n"})
    old = pointer_of(shelf)
    process.run(trusting)
    second = shelf.publish({"a.py": b"a = 2\n"})
    shelf.remove(manifest_key(second.revision))
    assert "release_missing" == process.fail().reason

    shelf.put(POINTER_KEY, old)

    assert "release_replayed" == process.fail().reason


def test_remembers_the_turns_of_each_prefix_separately(
    s3: FakeS3, shelf: Shelf, process: Process, trusting: dict[str, str]
) -> None:
    for number in range(3):
        shelf.publish({"a.py": b"a = %d\n" % number})
    process.run(trusting)
    release = make_release({"a.py": b"dev = 1\n"}, signer=KEY.signer)
    s3.put_all(release.objects(), "dev/")
    pointer = sign_pointer(serialize_pointer(release.pointer), s3.bucket, "dev/", KEY.signer)
    s3.put(f"dev/{POINTER_KEY}", pointer)

    process.restart(trusting | {"KEY_PATH": "dev"})

    assert "changed" == process.cycle().result
    assert {"s3://dags-bucket/dags/", "s3://dags-bucket/dev/"} == set(seen(process))


def test_forgets_the_turns_of_a_key_that_is_no_longer_trusted(
    shelf: Shelf, process: Process, trusting: dict[str, str], keys: Path
) -> None:
    """A thief may have signed the highest possible sequence."""
    write_keys(keys, KEY, OTHER)
    shelf.publish({"a.py": b"a = 1\n"})
    process.run(trusting)
    assert shelf.current is not None
    stolen = make_release({"a.py": b"evil = 1\n"}, signer=OTHER.signer)
    shelf.store(stolen)
    turn = Turn(stolen.revision, (1 << 53) - 1, AT)
    data = serialize_pointer(stolen.pointer._replace(turn=turn))
    shelf.put(POINTER_KEY, sign_pointer(data, "dags-bucket", PREFIX, OTHER.signer))
    process.cycle()
    assert {"a.py": b"evil = 1\n"} == process.shown

    shelf.publish({"a.py": b"a = 2\n"})
    assert "release_replayed" == process.fail().reason
    write_keys(keys, KEY)

    assert "changed" == process.cycle().result
    assert {"a.py": b"a = 2\n"} == process.shown


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"s3://dags-bucket/dags/": 3}',
        '{"s3://dags-bucket/dags/": {"%s": 1}}',
        '{"s3://dags-bucket/dags/": {"%s": {"sequence": 9e99, "revision": "x"}}}',
        '{"s3://dags-bucket/dags/": {"%s": {"sequence": 1e60, "revision": "ZEROS"}}}'.replace(
            "1e60", str(2**60)
        ).replace("ZEROS", "0" * 64),
    ],
)
def test_treats_a_damaged_file_of_seen_turns_as_missing(
    shelf: Shelf, process: Process, trusting: dict[str, str], content: str
) -> None:
    shelf.publish({"a.py": b"a = 1\n"})
    process.run(trusting)
    (process.folder / ".s3-sync/seen.json").write_text(content.replace("%s", KEY.key_id))
    release = shelf.publish({"a.py": b"a = 2\n"})
    process.restart(trusting)

    assert "changed" == process.cycle().result
    assert release.revision == seen(process)["s3://dags-bucket/dags/"][KEY.key_id]["revision"]


def test_remembers_turns_even_if_another_process_deletes_the_file(
    shelf: Shelf, process: Process, trusting: dict[str, str]
) -> None:
    shelf.publish({"a.py": b"a = 1\n"})
    old = pointer_of(shelf)
    process.run(trusting)
    shelf.publish({"a.py": b"a = 2\n"})
    process.cycle()
    (process.folder / ".s3-sync/seen.json").unlink()
    shelf.put(POINTER_KEY, old)

    assert "release_replayed" == process.fail().reason
