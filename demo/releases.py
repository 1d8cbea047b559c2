"""
The steps of s3-sync with releases: the command publishes a checkout, the daemon brings
it.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from demo.s3_sync import EXAMPLE, Stage
from demo.script import Result, Step, check, say, seconds_until
from tests.support.daemon import S3_SYNC
from tests.support.s3_sync.scripted import published
from tests.support.s3_sync.signing import Key

KEY_PATH = "data-team/releases"
CHANGED = "config/alerts.yaml"
BROKEN = "sales_daily.py"
GATE = ("--gate", "syntax")
SETTINGS = {
    "S3_SYNC_SOURCE": "release",
    "S3_SYNC_LAYOUT": "snapshot",
    "S3_SYNC_GATE": "syntax",
}


def run_s3_sync(
    stage: Stage,
    *arguments: str,
    fails: int = 0,
    settings: Mapping[str, str] | None = None,
) -> str:
    """
    Run an `s3-sync` command as CI does; print and return its output.

    Raises:
        AssertionError: Its exit code is not `fails`.
    """
    say(f"$ s3-sync {' '.join(arguments)}")
    done = subprocess.run(
        [str(S3_SYNC), *arguments],
        env={
            "PATH": os.defpath,
            "HOME": str(stage.dags.parent),
            "AWS_BUCKET": stage.s3.bucket,
            "KEY_PATH": KEY_PATH,
            **stage.s3.environment(),
            **(settings or {}),
        },
        cwd=stage.dags.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    said = (done.stdout + done.stderr).strip()
    say(said)
    check(done.returncode == fails, f"s3-sync {' '.join(arguments)} ends with {fails}")
    return said


def checkout_of(stage: Stage) -> Path:
    """
    Return the folder with the checkout of CI.
    """
    return stage.dags.with_name("checkout")


def edit(stage: Stage, content: bytes) -> None:
    """
    Change a file of the checkout.
    """
    (checkout_of(stage) / CHANGED).write_bytes(content)


def wait_for_release(stage: Stage) -> float:
    """
    Wait until consumers see exactly the checkout; return the seconds it took.
    """
    wanted = published(checkout_of(stage))
    current = stage.dags / "current"
    return seconds_until(
        stage.daemon,
        lambda: published(current) == wanted,
        "current shows the release",
    )


def requests(stage: Stage, *operations: str) -> list[float]:
    """
    Return how many requests of each operation the daemon has sent to S3.
    """
    sent = stage.daemon.metrics()
    name = 's3_sync_requests_total{{operation="{}",sidecar="s3-sync"}}'
    return [sent[name.format(operation)] for operation in operations]


def release_is_published(stage: Stage) -> Result:
    """
    The first release and a pod that starts; then a change.
    """
    stage.dags = stage.dags.with_name("released")
    shutil.copytree(
        EXAMPLE, checkout_of(stage), ignore=shutil.ignore_patterns("__pycache__")
    )
    run_s3_sync(stage, "publish", "checkout", *GATE)
    stage.start(KEY_PATH, **SETTINGS)
    stage.daemon.wait_until_ready()
    wait_for_release(stage)
    sent = requests(stage, "manifest", "bundle")
    check(sent == [1, 1], "one GET downloaded all files")
    edit(stage, b"page_after_minutes: 15\n")
    run_s3_sync(
        stage, "publish", "checkout", *GATE, "--message", "Page after 15 minutes"
    )
    seconds = wait_for_release(stage)
    sent = requests(stage, "manifest", "bundle", "list", "get")
    check(sent == [2, 2, 0, 0], "two GETs downloaded the change, and no LIST was sent")
    return Result("all files with one GET; the change with a ranged GET", seconds)


def bad_release_is_refused(stage: Stage) -> Result:
    """
    A DAG that does not compile: refused in CI, and by the daemon and a new pod if CI
    has no gate.
    """
    current = stage.dags / "current"
    path = checkout_of(stage) / BROKEN
    good = published(current)
    content = path.read_bytes()
    path.write_bytes(content + b"\nwith DAG('sales_daily'\n    pass\n")
    run_s3_sync(stage, "publish", "checkout", *GATE, fails=2)
    run_s3_sync(stage, "publish", "checkout")
    began = time.monotonic()
    event = stage.daemon.wait_for_event("revision_refused", path=BROKEN)
    seconds = time.monotonic() - began
    say(f"the daemon: refused {BROKEN}:{event['line']}: {event['problem']}")
    check(stage.daemon.get("/readyz").status == 200, "/readyz stays 200")
    check(published(current) == good, "nothing of the refused release is visible")
    new = stage.dags.with_name("new-pod")
    once = {"S3_SYNC_ONE_SHOT": "true", "S3_SYNC_HTTP_BIND": "127.0.0.1:0"}
    said = run_s3_sync(stage, settings={**SETTINGS, **once, "DEST_PATH": str(new)})
    check("gate_fallback" in said, "the log of a new pod reports the fallback")
    check(
        published(new / "current") == good, "a new pod has the last release that passed"
    )
    path.write_bytes(content)
    return Result(
        f"refused line {event['line']}; a new pod starts with the last good one",
        seconds,
    )


def release_is_rolled_back(stage: Stage) -> Result:
    """
    A rollback from the bad release, and a second rollback; then a promotion to another
    prefix.
    """
    run_s3_sync(stage, "rollback")
    stage.daemon.wait_for(lambda: not stage.daemon.reason(), "no failure is reported")
    wait_for_release(stage)
    run_s3_sync(stage, "rollback")
    edit(stage, EXAMPLE.joinpath(CHANGED).read_bytes())
    seconds = wait_for_release(stage)
    dev = f"s3://{stage.s3.bucket}/{KEY_PATH}"
    run_s3_sync(stage, "promote", dev, f"{dev}-prd", *GATE)
    said = run_s3_sync(stage, "publish", "checkout", *GATE, "--dry-run")
    check("Unchanged" in said, "the release equals the checkout")
    stage.daemon.terminate()
    return Result(
        "restored the first release, and promoted it; time: to the folder", seconds
    )


def forgery_is_refused(stage: Stage) -> Result:
    """
    Signed releases: another writer's unsigned release and an old signed pointer are
    refused.
    """
    home = stage.dags.parent
    key = Key()
    (home / "ci.pem").write_bytes(key.public_pem)
    key.write_private(home / "release-key.pem")
    signed = ("publish", "checkout", *GATE, "--sign-key", "release-key.pem")
    # The pointer here is unsigned so far, and replaced on purpose.
    run_s3_sync(stage, *signed, "--force")
    stage.dags = stage.dags.with_name("signed")
    stage.start(KEY_PATH, **SETTINGS, S3_SYNC_TRUSTED_KEYS=str(home / "ci.pem"))
    wait_for_release(stage)
    pointer = f"{KEY_PATH}/current.json"
    old = stage.s3.objects[pointer].body
    edit(stage, b"signed: true\n")
    run_s3_sync(stage, *signed)
    wait_for_release(stage)
    good = published(stage.dags / "current")
    edit(stage, b"forged: true\n")
    # without it, an unsigned publish fails
    run_s3_sync(stage, "publish", "checkout", "--force")
    began = time.monotonic()
    stage.daemon.wait_for_event("cycle_failed", reason="release_untrusted")
    seconds = time.monotonic() - began
    stage.s3.put(pointer, old)
    event = stage.daemon.wait_for_event("cycle_failed", reason="release_replayed")
    say(f"the daemon: release_replayed: {event['error']}")
    check(published(stage.dags / "current") == good, "the last good release stayed")
    check(stage.daemon.get("/readyz").status == 200, "/readyz stays 200")
    stage.daemon.terminate()
    return Result("refused an unsigned release and a replayed signed one", seconds)


STEPS: tuple[Step[Stage], ...] = (
    ("releases", release_is_published),
    ("a bad release", bad_release_is_refused),
    ("a rollback", release_is_rolled_back),
    ("a forged release", forgery_is_refused),
)
