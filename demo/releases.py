"""
The steps of s3-sync with releases: the command publishes a checkout, the daemon downloads it to
the folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from demo.bucket import Bucket
from demo.console import say
from demo.daemon import Daemon, StepFailed
from demo.s3_sync import EXAMPLE, Stage, files_in
from demo.script import Result, Step, check

KEY_PATH = "data-team/releases"
CHANGED = "config/alerts.yaml"
BROKEN = "sales_daily.py"


class Publishing(Protocol):
    """
    The objects for publishing: a bucket, a volume beside a checkout, and a daemon that fills it.
    """

    @property
    def bucket(self) -> Bucket: ...

    @property
    def dags(self) -> Path: ...

    @property
    def daemon(self) -> Daemon: ...


def run_s3_sync(
    stage: Publishing, *arguments: str, fails: int = 0, settings: Mapping[str, str] | None = None
) -> str:
    """
    Run an `s3-sync` command as CI does; print and return its output.

    Args:
        settings: Settings in addition to those for the bucket.

    Raises:
        StepFailed: Its exit code is not `fails`.
    """
    say(f"$ s3-sync {' '.join(arguments)}")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("s3-sync")), *arguments],
        env={
            "PATH": os.defpath,
            "HOME": str(stage.dags.parent),
            "AWS_BUCKET": stage.bucket.name,
            "KEY_PATH": KEY_PATH,
            **stage.bucket.server.environment(),
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
    if done.returncode != fails:
        raise StepFailed(f"s3-sync {' '.join(arguments)} ended with code {done.returncode}")
    return said


def checkout_of(stage: Publishing) -> Path:
    """
    Return the folder with the checkout of CI.
    """
    return stage.dags.with_name("checkout")


def wait_for_release(stage: Publishing) -> float:
    """
    Wait until consumers see exactly the checkout; return the seconds it took.
    """
    began = time.monotonic()
    wanted, current = files_in(checkout_of(stage)), stage.dags / "current"
    stage.daemon.wait_for(lambda: files_in(current) == wanted, "current shows the release")
    return time.monotonic() - began


def release_is_published(stage: Stage) -> Result:
    """
    The first release, and a pod that starts.
    """
    stage.dags = stage.dags.with_name("released")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(EXAMPLE, checkout_of(stage), ignore=ignored)
    run_s3_sync(stage, "publish", "checkout", "--gate", "syntax")
    say("started a daemon with S3_SYNC_SOURCE=release")
    began = time.monotonic()
    stage.daemon = stage.start_daemon(
        KEY_PATH,
        DEST_PATH=str(stage.dags),
        S3_SYNC_SOURCE="release",
        S3_SYNC_LAYOUT="snapshot",
        S3_SYNC_GATE="syntax",
    )
    stage.daemon.wait_for(lambda: stage.daemon.readiness()["ready"], "/readyz answers 200")
    seconds = time.monotonic() - began
    wait_for_release(stage)
    asked = requests_of(stage)
    check((asked["manifest"], asked["bundle"]) == (1, 1), "one GET downloaded all files")
    return Result(
        f"{len(files_in(checkout_of(stage)))} files with one GET of the bundle, each verified; "
        "includes the process start",
        seconds,
    )


def release_follows(stage: Stage) -> Result:
    """
    A change: the pointer is updated, and only the changed part of the bundle is downloaded.
    """
    path = checkout_of(stage) / CHANGED
    path.write_bytes(path.read_bytes().replace(b"30", b"15"))
    before = stage.daemon.readiness()["revision"]
    run_s3_sync(
        stage, "publish", "checkout", "--gate", "syntax", "--message", "Page after 15 minutes"
    )
    seconds = wait_for_release(stage)
    asked = requests_of(stage)
    check((asked["manifest"], asked["bundle"]) == (2, 2), "two GETs downloaded the change")
    check(asked["list"] == asked["get"] == 0, "no LIST request was ever sent")
    after = stage.daemon.wait_for(
        lambda: (now := stage.daemon.readiness()["revision"]) != before and now, "/readyz shows it"
    )
    say(f"current: {before} -> {after}; polls so far: {asked['pointer']}, one small GET each")
    return Result(f"{CHANGED} with one ranged GET; time: from the end of the publish", seconds)


def bad_release_is_refused(stage: Stage) -> Result:
    """
    A DAG that does not compile: refused in CI, and by the daemon if CI has no gate.
    """
    current, path = stage.dags / "current", checkout_of(stage) / BROKEN
    good, content = files_in(current), path.read_bytes()
    path.write_bytes(content + b"\nwith DAG('sales_daily'\n    pass\n")
    run_s3_sync(stage, "publish", "checkout", "--gate", "syntax", fails=2)
    run_s3_sync(stage, "publish", "checkout")
    began = time.monotonic()
    event = stage.daemon.wait_for(
        lambda: stage.daemon.find_event("revision_refused", path=BROKEN), "the release is refused"
    )
    seconds = time.monotonic() - began
    say(f"the daemon: refused {event['revision']}: {BROKEN}:{event['line']}: {event['problem']}")
    stage.daemon.wait_for(
        lambda: stage.daemon.readiness()["reason"] == "revision_refused", "/readyz reports it"
    )
    check(stage.daemon.readiness()["code"] == 200, "/readyz stays 200")
    check(files_in(current) == good, "nothing of the refused release is visible")
    path.write_bytes(content)
    return Result(
        f"publish refused {BROKEN}:{event['line']}; when published without a gate, the daemon "
        "refused it; the last good release stayed",
        seconds,
    )


def new_pod_starts(stage: Stage) -> Result:
    """
    A new pod while the newest release is refused: it starts with the previous release.
    """
    folder = stage.dags.with_name("new-pod")
    began = time.monotonic()
    said = run_s3_sync(
        stage,
        settings={
            "DEST_PATH": str(folder),
            "S3_SYNC_SOURCE": "release",
            "S3_SYNC_LAYOUT": "snapshot",
            "S3_SYNC_GATE": "syntax",
            "S3_SYNC_ONE_SHOT": "true",
            "S3_SYNC_HTTP_BIND": "127.0.0.1:0",
        },
    )
    seconds = time.monotonic() - began
    check("gate_fallback" in said, "the log reports the fallback")
    good = files_in(stage.dags / "current")
    check(files_in(folder / "current") == good, "it has the last release that passed")
    return Result("the init container filled an empty volume with the last good release", seconds)


def release_is_rolled_back(stage: Stage) -> Result:
    """
    A rollback from the bad release, and a second rollback.
    """
    run_s3_sync(stage, "rollback")
    stage.daemon.wait_for(
        lambda: stage.daemon.readiness()["reason"] is None, "/readyz reports no failure"
    )
    wait_for_release(stage)
    run_s3_sync(stage, "rollback")
    path = checkout_of(stage) / CHANGED
    path.write_bytes(EXAMPLE.joinpath(CHANGED).read_bytes())
    seconds = wait_for_release(stage)
    run_s3_sync(stage, "releases")
    return Result(
        "the first rollback left the refused release, the second restored the initial folder; "
        "time: from the end of the second rollback",
        seconds,
    )


def release_is_promoted(stage: Stage) -> Result:
    """
    A release that was tested in dev becomes current in prd.
    """
    bucket = f"s3://{stage.bucket.name}"
    dev, prd = f"{bucket}/{KEY_PATH}", f"{bucket}/{KEY_PATH}-prd"
    run_s3_sync(stage, "promote", dev, prd, "--gate", "syntax")
    path = checkout_of(stage) / CHANGED
    path.write_bytes(path.read_bytes().replace(b"30", b"15"))
    run_s3_sync(stage, "publish", "checkout", "--gate", "syntax")
    began = time.monotonic()
    said = run_s3_sync(stage, "promote", dev, prd, "--gate", "syntax")
    seconds = time.monotonic() - began
    check(f"~ {CHANGED}" in said, "it lists the changed file")
    said = run_s3_sync(stage, "diff", "current", "checkout/")
    check("0 added, 0 changed, 0 removed" in said, "dev equals the checkout")
    stage.daemon.terminate()
    return Result("prd has the same revision, every file verified; nothing was rebuilt", seconds)


def requests_of(stage: Stage) -> dict[str, int]:
    """
    Return the daemon's number of S3 requests by operation.
    """
    found = {}
    for name, value in stage.daemon.metrics().items():
        if name.startswith("s3_sync_requests_total{"):
            found[name.partition('operation="')[2].partition('"')[0]] = int(value)
    return found


STEPS: tuple[Step[Stage], ...] = (
    ("first release", release_is_published),
    ("next release", release_follows),
    ("a bad release", bad_release_is_refused),
    ("a new pod", new_pod_starts),
    ("a rollback", release_is_rolled_back),
    ("promotion to prd", release_is_promoted),
)
