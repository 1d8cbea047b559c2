"""
Signed releases: forged, unsigned and old pointers are refused; the last good release
stays.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import Bodies
from tests.s3_sync.release import independent
from tests.support.airflow.asking import STORE, asked
from tests.support.aws.writable_s3 import WritableS3, is_write
from tests.support.http.faults import first
from tests.support.s3_sync.publishing import PREFIX, Publishing, write_files
from tests.support.s3_sync.releases import make_release
from tests.support.s3_sync.shelf import Shelf, release_daemon
from tests.support.s3_sync.signing import Key, write_keys
from tests.support.s3_sync.snapshots import shown, wait_until_shown

A, B, C = ({"a.py": b"%d" % number} for number in range(3))
POINTER = "dags/current.json"


class Site(Publishing):
    """A bucket, a publisher with a key, and a daemon that trusts keys."""

    def __init__(self, s3: WritableS3, folder: Path) -> None:
        super().__init__(s3, s3.bucket, folder / "home")
        self.s3 = s3
        self.key, self.other = Key(), Key()
        self.keys = write_keys(folder / "keys", self.key)
        self.signs = ("--sign-key", self.key.write_private(folder / "key.pem"))
        self.daemon = release_daemon(
            s3, folder / "target", {"S3_SYNC_TRUSTED_KEYS": str(self.keys)}
        )

    def publish(self, files: Bodies, *more: str) -> bytes:
        """Publish a signed release; return its pointer."""
        self.succeed("publish", write_files(self.dags, files), *self.signs, *more)
        return self.pointer

    @property
    def body(self) -> bytes:
        """The pointer without its signature."""
        return independent.body_of(self.pointer)

    def accepts(self, key: Key, body: bytes) -> None:
        """Store a pointer that this key signs, which the daemon must accept."""
        self.s3.put(POINTER, key.signer.sign(body, self.s3.bucket, PREFIX))
        assert "unchanged" == self.daemon.sync()["result"]

    @property
    def pointer(self) -> bytes:
        return self.s3.objects[POINTER].body

    def refuses(self, pointer: bytes, reason: str) -> None:
        """Store a pointer, which the daemon must refuse."""
        self.s3.put(POINTER, pointer)
        before = shown(self.daemon.target)
        assert reason == self.daemon.sync()["reason"]
        assert before == shown(self.daemon.target)
        assert self.daemon.is_ready()

    def refuses_a_replay_after_a_restart(self) -> None:
        self.daemon.kill()
        self.daemon.start().wait_for_event("cycle_failed", reason="release_replayed")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with WritableS3() as s3:
        site = Site(s3, tmp_path)
        site.publish(A)
        with site.daemon:
            site.daemon.wait_until_synced()
            yield site


def test_refuses_forged_unsigned_and_moved_pointers(site: Site) -> None:
    good = site.pointer
    body = site.body
    for pointer in (
        body,
        good.replace(body, body.replace(b'"by": "', b'"by": "not ')),
        site.other.signer.sign(body, site.s3.bucket, PREFIX),
        site.key.signer.sign(body, site.s3.bucket, "other/"),
    ):
        site.refuses(pointer, "release_untrusted")
    site.accepts(site.key, body)


def test_refuses_an_old_pointer_also_after_a_restart(site: Site) -> None:
    """Also if a release is pinned in between, whose manifest needs no signature."""
    old = site.pointer
    site.publish(B)
    revision = json.loads(site.body)["version"]
    site.daemon.sync()
    assert B == shown(site.daemon.target)

    site.refuses(old, "release_replayed")
    site.daemon.kill()
    site.daemon.environment["S3_SYNC_REVISION"] = revision
    site.daemon.start().wait_until_synced()
    del site.daemon.environment["S3_SYNC_REVISION"]
    site.refuses_a_replay_after_a_restart()
    assert B == shown(site.daemon.target)
    site.publish(C)
    wait_until_shown(site.daemon, C)  # the retry after the failure may come first


def test_keys_rotate_without_a_restart(site: Site) -> None:
    body = site.body
    other = make_release(B)
    Shelf(site.s3).store(other)
    write_keys(site.keys, site.key, site.other)
    site.accepts(site.other, body)

    write_keys(site.keys)
    assert "trusted_keys_invalid" == site.daemon.sync()["reason"]
    assert 200 == asked(site.daemon.target / STORE, other.revision)[0]
    write_keys(site.keys, site.other)
    assert "unchanged" == site.daemon.sync()["result"]
    site.refuses(
        site.key.signer.sign(body, site.s3.bucket, PREFIX), "release_untrusted"
    )


def test_a_key_that_is_no_longer_trusted_takes_only_its_own_sequences_along(
    site: Site,
) -> None:
    """
    A thief signs the highest sequence; then that key is removed, and what the other one
    has signed counts, before and after: a writer to the bucket brings nothing back.
    """
    old = site.pointer
    site.publish(B)
    site.daemon.sync()
    body = site.body
    sequence = json.loads(body)["sequence"]
    turn = b"%d" % sequence
    write_keys(site.keys, site.key, site.other)
    site.accepts(site.other, body.replace(turn, b"9007199254740991"))
    site.daemon.kill()
    site.daemon.start().wait_until_synced()

    write_keys(site.keys, site.key)
    site.refuses(old, "release_replayed")
    # the same release again, as after a rollback between two polls
    site.accepts(site.key, body.replace(turn, b"%d" % (sequence + 1)))
    site.daemon.sync()
    site.refuses(site.key.signer.sign(body, site.s3.bucket, PREFIX), "release_replayed")
    site.refuses_a_replay_after_a_restart()


def test_a_publisher_replaces_an_untrusted_pointer_only_with_force(site: Site) -> None:
    """With a higher sequence than the pods have seen, although it cannot read that."""
    site.publish(C)
    site.daemon.sync()
    site.s3.put(POINTER, site.body)

    refused = site.fails("release_untrusted", "publish", site.dags, *site.signs)
    assert "it is not signed" in refused.err and "--force" in refused.err

    site.publish(B, "--force")
    assert "changed" == site.daemon.sync()["result"]
    assert B == shown(site.daemon.target)


def test_an_unsigned_command_ends_signing_only_with_force(
    site: Site, tmp_path: Path
) -> None:
    site.publish(B)
    good = site.pointer
    dev = f"s3://{site.s3.bucket}/dev"
    dags = write_files(tmp_path / "new", C)
    site.succeed("publish", dags, dev)

    promote = ("promote", dev, site.url)
    for words in (("publish", dags), ("rollback",), promote):
        refused = site.fails("release_untrusted", *words)
        assert "--sign-key" in refused.err and "--force" in refused.err
        assert good == site.pointer

    site.succeed(*promote, "--force")
    assert b"signature" not in site.pointer
    assert [] != site.succeed("releases")["history"][1:]


def test_another_key_that_was_faster_with_the_same_release_is_a_conflict(
    site: Site, tmp_path: Path
) -> None:
    ours = (
        *("publish", write_files(tmp_path / "new", B)),
        *("--sign-key", site.other.write_private(tmp_path / "other.pem")),
        *("--trusted-keys", write_keys(tmp_path / "both", site.key, site.other)),
    )
    site.s3.inject(first(lambda: site.publish(B)), is_write("current.json"), times=1)

    assert f"signed by {site.key.key_id}" in site.fails("publish_conflict", *ours).err
    assert site.other.key_id == site.succeed(*ours)["signed_by"]
