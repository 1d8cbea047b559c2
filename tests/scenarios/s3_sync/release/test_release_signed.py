"""
Signed releases: forged, unsigned and old pointers are refused; the last good release
stays.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.aws.writable_s3 import WritableS3, is_write
from tests.support.daemon import Daemon
from tests.support.http.faults import first
from tests.support.s3_sync.publishing import PREFIX, Publishing, write_files
from tests.support.s3_sync.shelf import release_daemon
from tests.support.s3_sync.signing import Key, write_keys
from tests.support.s3_sync.snapshots import shown, wait_until_shown

A, B, C = ({"a.py": b"%d" % number} for number in range(3))
POINTER = f"{PREFIX}current.json"


class Site:
    """A bucket, a publisher with a key, and a daemon that trusts keys."""

    def __init__(self, s3: WritableS3, folder: Path) -> None:
        self.s3 = s3
        self.key, self.other = Key(), Key()
        self.keys = write_keys(folder / "keys", self.key)
        self._folder = folder
        self.publisher = Publishing(s3, s3.bucket, folder / "home")
        self._private = self.key.write_private(folder / "key.pem")
        settings = {"S3_SYNC_TRUSTED_KEYS": str(self.keys)}
        self.daemon: Daemon = release_daemon(s3, folder / "target", settings)

    def publish(self, files: dict[str, bytes], *more: str) -> bytes:
        """Publish a signed release; return its pointer."""
        folder = write_files(self._folder / "dags", files)
        self.publisher.succeed(
            "publish", folder, "--sign-key", str(self._private), *more
        )
        return self.pointer

    @property
    def pointer(self) -> bytes:
        return self.s3.objects[POINTER].body

    def refuses(self, pointer: bytes, reason: str) -> None:
        """Store a pointer, which the daemon must refuse."""
        self.s3.put(POINTER, pointer)
        before = shown(self.daemon.target)
        assert reason == self.daemon.sync()["reason"]
        assert before == shown(self.daemon.target)
        assert self.daemon.get("/readyz").status == 200


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
    body, line = (
        good[: good.rindex(b'{"signature"')],
        good[good.rindex(b'{"signature"') :],
    )
    elsewhere = site.key.signer.sign(body, site.s3.bucket, "other/")

    site.refuses(body, "release_untrusted")
    site.refuses(body.replace(b'"by": "', b'"by": "not ') + line, "release_untrusted")
    site.refuses(
        site.other.signer.sign(body, site.s3.bucket, PREFIX), "release_untrusted"
    )
    site.refuses(elsewhere, "release_untrusted")
    site.refuses(good + b"\n", "release_untrusted")
    site.s3.put(POINTER, good)
    assert "unchanged" == site.daemon.sync()["result"]


def test_refuses_an_old_pointer_also_after_a_restart(site: Site) -> None:
    old = site.pointer
    site.publish(B)
    site.daemon.sync()
    assert B == shown(site.daemon.target)

    site.refuses(old, "release_replayed")
    site.daemon.kill()
    site.daemon.start()
    site.daemon.wait_for_event("cycle_failed", reason="release_replayed")
    assert B == shown(site.daemon.target)
    site.publish(C)
    wait_until_shown(site.daemon, C)  # the retry after the failure may come first


def test_remembers_the_sequence_of_a_rollback_that_it_saw_as_no_change(
    site: Site,
) -> None:
    site.publish(B)
    withdrawn = site.pointer
    site.publish(A)  # between two polls
    assert "unchanged" == site.daemon.sync()["result"]

    site.daemon.kill()
    site.s3.put(POINTER, withdrawn)
    site.daemon.start()
    site.daemon.wait_for_event("cycle_failed", reason="release_replayed")
    assert A == shown(site.daemon.target)


def test_keys_rotate_without_a_restart(site: Site) -> None:
    write_keys(site.keys, site.key, site.other)
    body = site.pointer[: site.pointer.rindex(b'{"signature"')]
    site.s3.put(POINTER, site.other.signer.sign(body, site.s3.bucket, PREFIX))
    assert "unchanged" == site.daemon.sync()["result"]

    write_keys(site.keys)
    assert "trusted_keys_invalid" == site.daemon.sync()["reason"]
    write_keys(site.keys, site.other)
    assert "unchanged" == site.daemon.sync()["result"]
    site.refuses(
        site.key.signer.sign(body, site.s3.bucket, PREFIX), "release_untrusted"
    )


def test_the_sequences_of_a_key_that_is_no_longer_trusted_do_not_count(
    site: Site,
) -> None:
    """A thief signs the highest sequence; then the key is replaced."""
    body = site.pointer[: site.pointer.rindex(b'{"signature"')]
    sequence = body[body.index(b'"sequence": ') :].split(b",")[0]
    stolen = body.replace(sequence, b'"sequence": 9007199254740991')
    site.s3.put(POINTER, site.key.signer.sign(stolen, site.s3.bucket, PREFIX))
    assert "unchanged" == site.daemon.sync()["result"]

    write_keys(site.keys, site.other)
    site.s3.put(POINTER, site.other.signer.sign(body, site.s3.bucket, PREFIX))

    assert "unchanged" == site.daemon.sync()["result"]


def test_a_publisher_replaces_an_untrusted_pointer_only_with_force(site: Site) -> None:
    """With a higher sequence than the pods have seen, although it cannot read that."""
    site.publish(C)
    site.daemon.sync()
    site.s3.put(POINTER, site.pointer[: site.pointer.rindex(b'{"signature"')])
    folder = str(site.publisher.environment["HOME"]) + "/../dags"

    refused = site.publisher.run(
        "publish", folder, "--sign-key", str(site.keys / "../key.pem")
    )
    assert (
        3 == refused.code
        and "it is not signed" in refused.err
        and "--force" in refused.err
    )

    site.publish(B, "--force")
    assert "changed" == site.daemon.sync()["result"]
    assert B == shown(site.daemon.target)


def test_an_unsigned_command_ends_signing_only_with_force(
    site: Site, tmp_path: Path
) -> None:
    site.publish(B)
    good, dags, dev = (
        site.pointer,
        write_files(tmp_path / "new", C),
        f"s3://{site.s3.bucket}/dev",
    )
    site.publisher.succeed("publish", dags, dev)

    promote = ("promote", dev, site.publisher.url)
    for words in (("publish", dags), ("rollback",), promote):
        refused = site.publisher.run(*words, "--output", "json")
        assert (3, "release_untrusted") == (refused.code, refused.facts()["reason"]), (
            refused
        )
        assert "--sign-key" in refused.err and "--force" in refused.err
        assert good == site.pointer

    site.publisher.succeed(*promote, "--force")
    assert b"signature" not in site.pointer
    assert [] != site.publisher.succeed("releases")["history"][1:]


def test_another_key_that_was_faster_with_the_same_release_is_a_conflict(
    site: Site, tmp_path: Path
) -> None:
    keys = write_keys(tmp_path / "both", site.key, site.other)
    ours = (
        "--sign-key",
        site.other.write_private(tmp_path / "other.pem"),
        "--trusted-keys",
        keys,
    )
    dags = write_files(tmp_path / "new", B)
    site.s3.inject(first(lambda: site.publish(B)), is_write("current.json"), times=1)

    ran = site.publisher.run("publish", dags, *ours, "--output", "json")

    assert (3, "publish_conflict") == (ran.code, ran.facts()["reason"]), ran
    assert f"signed by {site.key.key_id}" in ran.err
    assert (
        site.other.key_id == site.publisher.succeed("publish", dags, *ours)["signed_by"]
    )
