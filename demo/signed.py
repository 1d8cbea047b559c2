"""
The steps of s3-sync with signed releases: it accepts only releases signed with a trusted key.
"""

from __future__ import annotations

import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from demo.console import say
from demo.releases import CHANGED, KEY_PATH, checkout_of, run_s3_sync, wait_for_release
from demo.s3_sync import Stage, files_in
from demo.script import Result, Step, check

POINTER = f"{KEY_PATH}/current.json"
PRIVATE = "release-key.pem"
PUBLIC = "keys/ci.pem"


def release_is_signed(stage: Stage) -> Result:
    """
    A key, the first release that is signed with it, and a pod that accepts no other release.
    """
    home, key = stage.dags.parent, Ed25519PrivateKey.generate()
    home.joinpath(PUBLIC).parent.mkdir()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    home.joinpath(PUBLIC).write_bytes(public)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    home.joinpath(PRIVATE).write_bytes(private)
    say(f"created a key pair: {PRIVATE} for CI, {PUBLIC} for the pods")
    # The pointer here is unsigned so far, and replaced on purpose.
    run_s3_sync(stage, "publish", "checkout", "--gate", "syntax", "--sign-key", PRIVATE, "--force")
    say(f"started a daemon with S3_SYNC_TRUSTED_KEYS={home / PUBLIC}")
    began = time.monotonic()
    stage.dags = stage.dags.with_name("signed")
    stage.daemon = stage.start_daemon(
        KEY_PATH,
        DEST_PATH=str(stage.dags),
        S3_SYNC_SOURCE="release",
        S3_SYNC_LAYOUT="snapshot",
        S3_SYNC_TRUSTED_KEYS=str(home / PUBLIC),
    )
    stage.daemon.wait_for(lambda: stage.daemon.readiness()["ready"], "/readyz answers 200")
    seconds = time.monotonic() - began
    wait_for_release(stage)
    return Result("verified with the public key alone; includes the process start", seconds)


def forgery_is_refused(stage: Stage) -> Result:
    """
    Another writer of the bucket: an unsigned release, and an old, correctly signed pointer.
    """
    old = stage.bucket.read(POINTER)
    path = checkout_of(stage) / CHANGED
    path.write_bytes(path.read_bytes() + b"# signed\n")
    run_s3_sync(stage, "publish", "checkout", "--gate", "syntax", "--sign-key", PRIVATE)
    wait_for_release(stage)
    good = files_in(stage.dags / "current")
    path.write_bytes(b"forged: true\n")
    run_s3_sync(stage, "publish", "checkout")
    seconds = _wait_until_refused(stage, "release_untrusted")
    say("restored an old pointer that is signed with the trusted key")
    stage.bucket.overwrite(POINTER, old)
    _wait_until_refused(stage, "release_replayed")
    check(files_in(stage.dags / "current") == good, "the last good release stayed")
    path.write_bytes(good[CHANGED].replace(b"# signed", b"# signed again"))
    run_s3_sync(stage, "publish", "checkout", "--gate", "syntax", "--sign-key", PRIVATE)
    wait_for_release(stage)
    stage.daemon.terminate()
    return Result(
        "refused an unsigned release and a replayed signed one, published none of either; the next "
        "signed release was published",
        seconds,
    )


def _wait_until_refused(stage: Stage, reason: str) -> float:
    """
    Wait until the daemon refuses the current release with a reason; return the seconds it took.
    """
    began = time.monotonic()
    event = stage.daemon.wait_for(
        lambda: stage.daemon.find_event("cycle_failed", reason=reason), f"it reports {reason}"
    )
    seconds = time.monotonic() - began
    say(f"the daemon: {reason}: {event['error']}")
    check(stage.daemon.readiness()["code"] == 200, "/readyz stays 200")
    return seconds


STEPS: tuple[Step[Stage], ...] = (
    ("a signed release", release_is_signed),
    ("a forged release", forgery_is_refused),
)
