"""
The steps of s3-sync that follow a bucket: each changes one thing and checks the folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from demo.bucket import Bucket
from demo.console import say
from demo.daemon import Daemon
from demo.script import Result, Step, check

OURS = ".s3-sync"
EXAMPLE = Path(__file__).with_name("dag_folder")


@dataclass
class Stage:
    """
    The objects that the steps act on.
    """

    bucket: Bucket
    dags: Path
    daemon: Daemon
    start_daemon: Callable[..., Daemon]
    """Starts another daemon: `start_daemon(KEY_PATH, SETTING=value, ...)`."""

    @property
    def concerned(self) -> Daemon:
        """
        The daemon whose log is printed when a step fails.
        """
        return self.daemon


def files_in(folder: Path) -> dict[str, bytes]:
    """
    Return the files of a folder by relative path, without s3-sync's own.
    """
    files = {}
    for here, _, names in os.walk(folder):  # tolerates that the daemon removes files meanwhile
        for name in names:
            path = Path(here, name)
            relative = path.relative_to(folder)
            if relative.parts[0] != OURS:
                with suppress(FileNotFoundError):
                    files[relative.as_posix()] = path.read_bytes()
    return files


def wait_until_equal(stage: Stage, foreign: dict[str, bytes] | None = None) -> float:
    """
    Wait until the folder contains exactly the files of the bucket; return the seconds it took.
    """
    began = time.monotonic()
    wanted = stage.bucket.files | (foreign or {})
    stage.daemon.wait_for(lambda: files_in(stage.dags) == wanted, "the folder equals the bucket")
    return time.monotonic() - began


def folder_appears(stage: Stage) -> Result:
    """
    The first sync, from the start of the process to /readyz.
    """
    began = time.monotonic()
    stage.daemon.wait_for(lambda: stage.daemon.readiness()["ready"], "/readyz answers 200")
    seconds = time.monotonic() - began
    check(files_in(stage.dags) == stage.bucket.files, "all files exist when /readyz returns 200")
    for path in sorted(stage.bucket.files)[:6]:
        say(f"{path}  ({len(stage.bucket.files[path])} bytes)")
    say(f"... and {len(stage.bucket.files) - 6} more")
    say(f"status page while this runs: {stage.daemon.url()}/")
    return Result(
        f"/readyz returned 200 with {len(stage.bucket.files)} identical files in the folder; "
        "includes the process start",
        seconds,
    )


def file_changes(stage: Stage) -> Result:
    """
    A change that keeps the file's size, which `aws s3 sync` can miss.
    """
    path = "config/alerts.yaml"
    before = {p: (stage.dags / p).stat() for p in stage.bucket.files}
    content = stage.bucket.files[path].replace(b"30", b"15")
    check(len(content) == before[path].st_size, "the new content has the old size")
    stage.bucket.put(path, content)
    say(f"uploaded {path}: page_after_minutes 30 -> 15, same size")
    seconds = wait_until_equal(stage)
    after = {p: (stage.dags / p).stat() for p in stage.bucket.files}
    touched = [p for p in before if before[p].st_ino != after[p].st_ino]
    check(touched == [path], "only that file was replaced")
    check(int(after[path].st_mtime) > int(before[path].st_mtime), "its mtime is a later second")
    return Result(f"replaced {path}, although its size is the same; no other file changed", seconds)


def package_arrives(stage: Stage) -> Result:
    """
    A new package and the DAG that uses it.
    """
    package = {
        "refunds_daily.py": b"from shop.refunds.report import build\n\nbuild()\n",
        "shop/refunds/__init__.py": b"",
        "shop/refunds/report.py": b"def build():\n    return 'report'\n",
        "shop/refunds/queries/by_reason.sql": b"select reason, count(*) from refunds group by 1;\n",
    }
    for path, content in package.items():
        stage.bucket.put(path, content)
        say(f"uploaded {path}")
    seconds = wait_until_equal(stage)
    return Result(f"{len(package)} files in 2 new folders, including an empty __init__.py", seconds)


def file_goes(stage: Stage) -> Result:
    """
    Deletions: of files that s3-sync published, never of files that other processes own.
    """
    compiled = "shop/__pycache__/settings.cpython-313.pyc"
    foreign = {compiled: b"compiled by Airflow", "airflow.log": b"written by another process"}
    for path, content in foreign.items():
        (stage.dags / path).parent.mkdir(exist_ok=True)
        (stage.dags / path).write_bytes(content)
    for path in ("currency_rates.py", "shop/refunds/queries/by_reason.sql"):
        stage.bucket.delete(path)
        say(f"deleted {path} from the bucket")
    seconds = wait_until_equal(stage, foreign)
    # The folder is removed right after its last file.
    emptied = stage.dags / "shop/refunds/queries"
    stage.daemon.wait_for(lambda: not emptied.exists(), "the empty folder is removed")
    for path in foreign:
        (stage.dags / path).unlink()
    return Result(
        "removed 2 files and an empty folder; kept __pycache__ and a foreign file", seconds
    )


def source_fails(stage: Stage) -> Result:
    """
    S3 is down for a while: the files stay, the cause is reported, recovery is automatic.
    """
    stage.bucket.server.stop()
    say("stopped the S3 server")
    stage.daemon.wait_for(
        lambda: stage.daemon.find_event("cycle_failed", consecutive_failures=2),
        "two failed cycles",
    )
    readiness = stage.daemon.readiness()
    _, page = stage.daemon.get("/")
    alive, _ = stage.daemon.get("/healthz")
    reason = "endpoint_unreachable"
    check(readiness["code"] == 200 and readiness["ready"], "/readyz stays 200")
    check(readiness["reason"] == reason, f"/readyz reports the reason {reason}")
    check(reason in page, "the status page shows it")
    check(alive == 200, "/healthz stays 200")
    check(files_in(stage.dags) == stage.bucket.files, "the last good files stay")
    say(f"/readyz  200  reason={reason}")
    say(f"error: {readiness['error']}")
    stage.bucket.server.start()
    stage.bucket.put("config/alerts.yaml", b'channel: "#data-alerts"\npage_after_minutes: 5\n')
    say("restarted the server, and uploaded a change")
    seconds = wait_until_equal(stage)
    stage.daemon.wait_for(
        lambda: stage.daemon.readiness()["reason"] is None, "/readyz reports no failure"
    )
    return Result(
        f"all files stayed; /readyz returned 200 with {reason}; "
        "time: from the restart of S3 to the new change in the folder",
        seconds,
    )


def daemon_stops(stage: Stage) -> Result:
    """
    SIGTERM.
    """
    seconds = stage.daemon.terminate()
    check(files_in(stage.dags) == stage.bucket.files, "the files stay")
    return Result("exited with code 0; the files stayed", seconds)


def prefix_is_mistyped(stage: Stage) -> Result:
    """
    Another daemon on the same folder, with a KEY_PATH that contains no files.
    """
    wrong = stage.bucket.prefix.replace("dags", "dgas")
    began = time.monotonic()
    with stage.start_daemon(wrong) as stage.daemon:
        say(f"started s3-sync again with KEY_PATH={wrong}")
        event = stage.daemon.wait_for(
            lambda: stage.daemon.find_event("cycle_failed", reason="source_empty"),
            "the cycle fails with source_empty",
        )
        seconds = time.monotonic() - began
        say(f"error: {event['error']}")
        say(f"advice: {event['advice']}")
        stage.daemon.wait_for(
            lambda: stage.daemon.find_event("cycle_failed", consecutive_failures=2),
            "it retries",
        )
        readiness = stage.daemon.readiness()
        check(readiness["code"] == 503, "/readyz is 503: this prefix was never published")
        check(readiness["reason"] == "source_empty", "/readyz reports the reason source_empty")
        say(f"/readyz  503  reason={readiness['reason']}")
        check(files_in(stage.dags) == stage.bucket.files, "nothing was deleted")
        stage.daemon.terminate()
    return Result(
        "not ready, reason source_empty; deleted nothing; time: to the first error", seconds
    )


def snapshot_is_swapped(stage: Stage) -> Result:
    """
    The snapshot layout: several files change, and become visible in one step.
    """
    stage.dags = stage.dags.with_name("snapshots")
    current = stage.dags / "current"
    stage.daemon = stage.start_daemon(
        stage.bucket.prefix.rstrip("/"),
        DEST_PATH=str(stage.dags),
        S3_SYNC_LAYOUT="snapshot",
        S3_SYNC_GATE="syntax",
    )
    stage.daemon.wait_for(lambda: stage.daemon.readiness()["ready"], "/readyz answers 200")
    before, files_before = current.resolve(), files_in(current)
    check(files_before == stage.bucket.files, "DEST_PATH/current contains all files")
    say(f"{current.name} -> {current.readlink()}")
    changed = ("sales_daily.py", "shop/settings.py", "sql/marts/sales_by_day.sql")
    for path in changed:
        stage.bucket.put(path, stage.bucket.files[path] + b"\n")
    say(f"uploaded {', '.join(changed)}")
    began = time.monotonic()
    stage.daemon.wait_for(lambda: files_in(current) == stage.bucket.files, "current is up to date")
    seconds = time.monotonic() - began
    after = current.resolve()
    say(f"{current.name} -> {current.readlink()}")
    check(files_in(before) == files_before, "readers of the old snapshot still see its revision")
    same = [p for p in files_before if os.path.samefile(before / p, after / p)]
    check(set(same) == files_before.keys() - set(changed), "unchanged files are hard links")
    return Result(
        f"published {len(changed)} changes with one rename; {len(same)} unchanged files are hard "
        "links",
        seconds,
    )


def broken_dag_is_refused(stage: Stage) -> Result:
    """
    The gate: a DAG that does not compile, together with a deletion.
    """
    current = stage.dags / "current"
    good, content = files_in(current), stage.bucket.files["sales_daily.py"]
    began = time.monotonic()
    stage.bucket.put("sales_daily.py", content + b"\nwith DAG('sales_daily'\n    pass\n")
    stage.bucket.delete("maintenance/log_retention.py")
    say("uploaded sales_daily.py with a missing parenthesis, and deleted another DAG")
    event = stage.daemon.wait_for(
        lambda: stage.daemon.find_event("revision_refused", path="sales_daily.py"),
        "the revision is refused",
    )
    seconds = time.monotonic() - began
    say(f"refused: {event['path']}:{event['line']}: {event['problem']}")
    stage.daemon.wait_for(
        lambda: stage.daemon.readiness()["reason"] == "revision_refused", "/readyz reports it"
    )
    readiness = stage.daemon.readiness()
    check(readiness["code"] == 200, "/readyz stays 200: the last good revision is published")
    check(f"sales_daily.py:{event['line']}" in stage.daemon.get("/")[1], "the status page shows it")
    check(files_in(current) == good, "nothing of the refused revision is visible")
    stage.bucket.put("sales_daily.py", content)
    say("uploaded the fixed sales_daily.py")
    stage.daemon.wait_for(lambda: files_in(current) == stage.bucket.files, "current is up to date")
    stage.daemon.terminate()
    return Result(
        f"refused at sales_daily.py:{event['line']}, published none of it; the fix was published",
        seconds,
    )


STEPS: tuple[Step[Stage], ...] = (
    ("first sync", folder_appears),
    ("a changed file", file_changes),
    ("a new package", package_arrives),
    ("deletions", file_goes),
    ("S3 outage", source_fails),
    ("SIGTERM", daemon_stops),
    ("a mistyped prefix", prefix_is_mistyped),
    ("an atomic snapshot swap", snapshot_is_swapped),
    ("a broken DAG", broken_dag_is_refused),
)
