"""
Whole daemons on a bucket that an attacker writes to: what is logged and answered. All that can be
tried is tried cycle by cycle, in tests/s3_sync/release.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from s3_sync.release.pointer import split_pointer
from s3_sync.release.signed import sign_pointer
from tests.s3_sync.release.attacks import BUCKET, HONEST, Objects, Place, Scene, named
from tests.support.daemon import Daemon
from tests.support.fake_s3 import FakeS3
from tests.support.shelf import PREFIX, release_daemon
from tests.support.signing import write_keys
from tests.support.snapshots import SNAPSHOT, consumed


def altered(scene: Scene) -> Objects:
    return scene.objects(pointer=scene.next.pointer_bytes.replace(b"Honest", b"Thiefs"))


def surrogates(scene: Scene) -> Objects:
    facts = json.loads(split_pointer(scene.next.pointer_bytes)[0])
    body = json.dumps(facts | {"revision": "\ud800\udcff"}).encode() + b"\n"
    return scene.objects(pointer=sign_pointer(body, BUCKET, PREFIX, HONEST.signer))


# By the reasons of whoever has keys and of whoever has none; what they quote is hostile.
ATTACKS = {
    "a path that leads out": (named("../evil.py"), "release_invalid", "release_invalid"),
    "a path that steers terminals": (
        named("\x1b]0;evil\x07/../a.py"),
        "release_invalid",
        "release_invalid",
    ),
    "a revision of surrogates": (surrogates, "release_invalid", "release_invalid"),
    "an old pointer": (lambda scene: {"current.json": scene.old}, "release_replayed", ""),
    "a pointer that nobody has signed so": (altered, "release_untrusted", ""),
}


@pytest.fixture(scope="module")
def attacked() -> Iterator[Place]:
    with FakeS3() as s3:
        yield Place(s3)


@pytest.fixture(scope="module")
def daemons(attacked: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    """One that trusts a key, and one that has none."""
    home = tmp_path_factory.mktemp("attacked")
    keys = {"S3_SYNC_TRUSTED_KEYS": str(write_keys(home / "keys", HONEST))}
    settings = {**SNAPSHOT, "S3_SYNC_JITTER": "0"}
    with (
        release_daemon(attacked.s3, home / "dags", settings | keys) as trusting,
        release_daemon(attacked.s3, home / "plain", settings) as plain,
    ):
        for daemon in (trusting, plain):
            daemon.wait_until_synced()
        yield [trusting, plain]


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_named_in_log_and_answers_and_what_was_good_stays(
    attacked: Place, daemons: list[Daemon], name: str
) -> None:
    attack, *reasons = ATTACKS[name]
    attacked.publish()
    for daemon in daemons:
        assert attacked.good.revision == daemon.sync()["revision"]
    attacked.put(attack(attacked.scene()))

    with ThreadPoolExecutor() as both:
        ended = list(both.map(Daemon.sync, daemons))

    for daemon, end, reason in zip(daemons, ended, reasons, strict=True):
        assert reason == end.get("reason", ""), end
        if reason:
            ready = daemon.get("/readyz")
            assert (200, reason) == (ready.status, ready.json()["reason"])
            assert attacked.files == consumed(daemon.target)
            assert end["error"].isprintable()
    attacked.publish()
    for daemon in daemons:
        assert attacked.good.revision == daemon.sync()["revision"]
        assert attacked.files == consumed(daemon.target)
