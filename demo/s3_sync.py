"""
The steps of s3-sync that follow a bucket: each changes one thing and checks the folder.
"""

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from demo.script import Result, Step, check, say, seconds_until
from tests.support.aws.writable_s3 import WritableS3
from tests.support.daemon import Daemon
from tests.support.s3_sync.scripted import published

EXAMPLE = Path(__file__).with_name("dag_folder")
KEY_PATH = "data-team/dags"


@dataclass
class Stage:
    """
    The objects that the steps act on.
    """

    s3: WritableS3
    dags: Path
    stack: ExitStack
    """Ends everything after the last step."""
    daemon: Daemon = field(init=False)

    def start(self, key_path: str = KEY_PATH, **settings: str) -> None:
        """
        Start a daemon that fills the folder, with the four settings of the published
        example.
        """
        daemon = Daemon(self.s3, self.s3.bucket, self.dags, key_path, "1", settings)
        self.daemon = self.stack.enter_context(daemon)

    def put(self, path: str, content: bytes) -> None:
        """
        Upload one file.
        """
        self.s3.put(f"{KEY_PATH}/{path}", content)

    @property
    def files(self) -> dict[str, bytes]:
        """
        The files of the bucket, by relative path.
        """
        prefix = f"{KEY_PATH}/"
        return {
            key.removeprefix(prefix): stored.body
            for key, stored in self.s3.objects.items()
            if key.startswith(prefix)
        }


def wait_until_equal(stage: Stage, foreign: dict[str, bytes] | None = None) -> float:
    """
    Wait until the folder contains exactly the files of the bucket; return the seconds
    it took.
    """
    wanted = stage.files | (foreign or {})
    return seconds_until(
        stage.daemon,
        lambda: published(stage.dags) == wanted,
        "the folder equals the bucket",
    )


def folder_appears(stage: Stage) -> Result:
    """
    The first sync, from the start of the process to /readyz.
    """
    began = time.monotonic()
    stage.daemon.wait_until_ready()
    seconds = time.monotonic() - began
    check(
        published(stage.dags) == stage.files, "all files exist when /readyz returns 200"
    )
    say(
        f"status page while this runs: {'http://{}:{}/'.format(*stage.daemon.address())}"
    )
    return Result(f"{len(stage.files)} files when /readyz returned 200", seconds)


def file_changes(stage: Stage) -> Result:
    """
    A change that keeps the file's size, which `aws s3 sync` can miss.
    """
    path = "config/alerts.yaml"
    before = {p: (stage.dags / p).stat().st_ino for p in stage.files}
    stage.put(path, stage.files[path].replace(b"30", b"15"))
    say(f"uploaded {path}: page_after_minutes 30 -> 15, same size")
    seconds = wait_until_equal(stage)
    touched = [
        p for p, inode in before.items() if (stage.dags / p).stat().st_ino != inode
    ]
    check(touched == [path], "only that file was replaced")
    return Result(
        f"replaced {path}, although its size is the same; no other file", seconds
    )


def file_goes(stage: Stage) -> Result:
    """
    Deletions: of files that s3-sync published, never of files that other processes own.
    """
    foreign = {
        "shop/__pycache__/settings.pyc": b"compiled",
        "airflow.log": b"another process's",
    }
    for path, content in foreign.items():
        (stage.dags / path).parent.mkdir(exist_ok=True)
        (stage.dags / path).write_bytes(content)
    for path in ("currency_rates.py", "maintenance/db_cleanup.py"):
        stage.s3.delete(f"{KEY_PATH}/{path}")
        say(f"deleted {path} from the bucket")
    seconds = wait_until_equal(stage, foreign)
    for path in foreign:
        (stage.dags / path).unlink()
    return Result("removed 2 files; kept __pycache__ and a foreign file", seconds)


def source_fails(stage: Stage) -> Result:
    """
    S3 is down for a while: the files stay, the cause is reported, recovery is
    automatic.
    """
    stage.s3.stop()
    say("stopped the S3 server")
    stage.daemon.wait_for_event("cycle_failed", consecutive_failures=2)
    readiness = stage.daemon.get("/readyz")
    reason = "endpoint_unreachable"
    check(readiness.status == 200, "/readyz stays 200")
    check(readiness.json()["reason"] == reason, f"/readyz reports the reason {reason}")
    check(reason in stage.daemon.get("/").body, "the status page shows it")
    check(stage.daemon.get("/healthz").status == 200, "/healthz stays 200")
    check(published(stage.dags) == stage.files, "the last good files stay")
    say(f"/readyz  200  reason={reason}\nerror: {readiness.json()['error']}")
    stage.s3.start()
    stage.put("config/alerts.yaml", b"page_after_minutes: 5\n")
    seconds = wait_until_equal(stage)
    stage.daemon.wait_for(lambda: not stage.daemon.reason(), "no failure is reported")
    check(stage.daemon.terminate().code == 0, "SIGTERM ends it with 0")
    return Result("all files stayed; time: from S3's restart to a new change", seconds)


def prefix_is_mistyped(stage: Stage) -> Result:
    """
    Another daemon on the same folder, with a KEY_PATH that contains no files.
    """
    wrong = KEY_PATH.replace("dags", "dgas")
    began = time.monotonic()
    stage.start(wrong)
    say(f"started s3-sync again with KEY_PATH={wrong}")
    event = stage.daemon.wait_for_event("cycle_failed", reason="source_empty")
    seconds = time.monotonic() - began
    say(f"error: {event['error']}\nadvice: {event['advice']}")
    check(
        stage.daemon.get("/readyz").status == 503,
        "/readyz is 503: it was never published",
    )
    check(published(stage.dags) == stage.files, "nothing was deleted")
    stage.daemon.terminate()
    return Result(
        "not ready, source_empty; deleted nothing; time: to the error", seconds
    )


def snapshot_is_swapped(stage: Stage) -> Result:
    """
    The snapshot layout: several files change, and become visible in one step.
    """
    stage.dags = stage.dags.with_name("snapshots")
    current = stage.dags / "current"
    stage.start(S3_SYNC_LAYOUT="snapshot")
    stage.daemon.wait_until_ready()
    before = current.resolve()
    files_before = published(current)
    changed = ("sales_daily.py", "shop/settings.py", "sql/marts/sales_by_day.sql")
    for path in changed:
        stage.put(path, stage.files[path] + b"\n")
    say(f"uploaded {', '.join(changed)}")
    seconds = seconds_until(
        stage.daemon,
        lambda: published(current) == stage.files,
        "current is up to date",
    )
    say(f"{current.name} -> {current.readlink()}")
    check(
        published(before) == files_before,
        "readers of the old snapshot still see its revision",
    )
    same = [p for p in files_before if os.path.samefile(before / p, current / p)]
    check(
        set(same) == files_before.keys() - set(changed),
        "unchanged files are hard links",
    )
    stage.daemon.terminate()
    return Result(
        "published 3 changes with one rename; all other files are hard links", seconds
    )


STEPS: tuple[Step[Stage], ...] = (
    ("first sync", folder_appears),
    ("a changed file", file_changes),
    ("deletions", file_goes),
    ("S3 outage", source_fails),
    ("a mistyped prefix", prefix_is_mistyped),
    ("an atomic snapshot swap", snapshot_is_swapped),
)
