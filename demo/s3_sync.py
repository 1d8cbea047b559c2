"""
The steps of s3-sync that follow a bucket: each does one thing to it, and looks at the folder.
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
    What the steps act on.
    """

    bucket: Bucket
    dags: Path
    daemon: Daemon
    start_daemon: Callable[..., Daemon]
    """Starts another daemon: `start_daemon(KEY_PATH, SETTING=value, ...)`."""

    @property
    def concerned(self) -> Daemon:
        """
        Whose log is worth reading when a step fails.
        """
        return self.daemon


def files_in(folder: Path) -> dict[str, bytes]:
    """
    Return the files of a folder by relative path, without what is s3-sync's own.
    """
    files = {}
    for here, _, names in os.walk(folder):  # bears what the daemon removes meanwhile
        for name in names:
            path = Path(here, name)
            relative = path.relative_to(folder)
            if relative.parts[0] != OURS:
                with suppress(FileNotFoundError):
                    files[relative.as_posix()] = path.read_bytes()
    return files


def wait_until_equal(stage: Stage, foreign: dict[str, bytes] | None = None) -> float:
    """
    Wait until the folder has exactly the files of the bucket; return the seconds it took.
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
    check(files_in(stage.dags) == stage.bucket.files, "when /readyz says 200, all files are there")
    for path in sorted(stage.bucket.files)[:6]:
        say(f"{path}  ({len(stage.bucket.files[path])} bytes)")
    say(f"... and {len(stage.bucket.files) - 6} more")
    say(f"status page while this runs: {stage.daemon.url()}/")
    return Result(
        f"{len(stage.bucket.files)} files, byte for byte, when /readyz said 200; "
        "process start included",
        seconds,
    )


def file_changes(stage: Stage) -> Result:
    """
    A change that keeps the size, which `aws s3 sync` can miss.
    """
    path = "config/alerts.yaml"
    before = {p: (stage.dags / p).stat() for p in stage.bucket.files}
    content = stage.bucket.files[path].replace(b"30", b"15")
    check(len(content) == before[path].st_size, "the new content is as long as the old")
    stage.bucket.put(path, content)
    say(f"uploaded {path}: page_after_minutes 30 -> 15, same size")
    seconds = wait_until_equal(stage)
    after = {p: (stage.dags / p).stat() for p in stage.bucket.files}
    touched = [p for p in before if before[p].st_ino != after[p].st_ino]
    check(touched == [path], "only that file was replaced")
    check(int(after[path].st_mtime) > int(before[path].st_mtime), "its mtime is a later second")
    return Result(f"{path} replaced, the other {len(before) - 1} untouched", seconds)


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
    return Result(f"{len(package)} files in 2 new folders, an empty __init__.py too", seconds)


def file_goes(stage: Stage) -> Result:
    """
    Deletions: of what s3-sync published, never of what others put there.
    """
    compiled = "shop/__pycache__/settings.cpython-313.pyc"
    foreign = {compiled: b"compiled by Airflow", "airflow.log": b"written by someone else"}
    for path, content in foreign.items():
        (stage.dags / path).parent.mkdir(exist_ok=True)
        (stage.dags / path).write_bytes(content)
    for path in ("currency_rates.py", "shop/refunds/queries/by_reason.sql"):
        stage.bucket.delete(path)
        say(f"deleted {path} from the bucket")
    seconds = wait_until_equal(stage, foreign)
    # The folder goes right after its last file.
    emptied = stage.dags / "shop/refunds/queries"
    stage.daemon.wait_for(lambda: not emptied.exists(), "the empty folder goes too")
    for path in foreign:
        (stage.dags / path).unlink()
    return Result(
        "2 files and an empty folder gone; __pycache__ and a foreign file stayed", seconds
    )


def source_fails(stage: Stage) -> Result:
    """
    S3 is down for a while: the files stay, the cause is shown, recovery needs nobody.
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
    check(readiness["reason"] == reason, f"/readyz names the reason {reason}")
    check(reason in page, "the status page names it")
    check(alive == 200, "/healthz stays 200")
    check(files_in(stage.dags) == stage.bucket.files, "the last good files stay")
    say(f"/readyz  200  reason={reason}")
    say(f"error: {readiness['error']}")
    stage.bucket.server.start()
    stage.bucket.put("config/alerts.yaml", b'channel: "#data-alerts"\npage_after_minutes: 5\n')
    say("started it again, and uploaded a change")
    seconds = wait_until_equal(stage)
    stage.daemon.wait_for(
        lambda: stage.daemon.readiness()["reason"] is None, "/readyz is content again"
    )
    return Result(
        f"all files stayed; /readyz 200 and the status page said {reason}; "
        "time is from S3 back to the change in the folder",
        seconds,
    )


def daemon_stops(stage: Stage) -> Result:
    """
    SIGTERM.
    """
    seconds = stage.daemon.terminate()
    check(files_in(stage.dags) == stage.bucket.files, "the files stay")
    return Result("exit code 0, the files stay", seconds)


def prefix_is_mistyped(stage: Stage) -> Result:
    """
    Another daemon on the same folder, with a KEY_PATH that has no files.
    """
    wrong = stage.bucket.prefix.replace("dags", "dgas")
    began = time.monotonic()
    with stage.start_daemon(wrong) as stage.daemon:
        say(f"started again with KEY_PATH={wrong}")
        event = stage.daemon.wait_for(
            lambda: stage.daemon.find_event("cycle_failed", reason="source_empty"),
            "the cycle fails with source_empty",
        )
        seconds = time.monotonic() - began
        say(f"error: {event['error']}")
        say(f"advice: {event['advice']}")
        stage.daemon.wait_for(
            lambda: stage.daemon.find_event("cycle_failed", consecutive_failures=2),
            "it tries again",
        )
        readiness = stage.daemon.readiness()
        check(readiness["code"] == 503, "/readyz is 503: this prefix was never published")
        check(readiness["reason"] == "source_empty", "/readyz names the reason source_empty")
        say(f"/readyz  503  reason={readiness['reason']}")
        check(files_in(stage.dags) == stage.bucket.files, "nothing was deleted")
        stage.daemon.terminate()
    return Result(
        "reason source_empty, not ready, nothing deleted; time is to the first error", seconds
    )


def snapshot_is_swapped(stage: Stage) -> Result:
    """
    The snapshot layout: many files change, and are seen in one step.
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
    check(files_before == stage.bucket.files, "DEST_PATH/current has all files")
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
    check(files_in(before) == files_before, "who resolved the link before still has that revision")
    same = [p for p in files_before if os.path.samefile(before / p, after / p)]
    check(set(same) == files_before.keys() - set(changed), "unchanged files are hard links")
    return Result(f"a new revision by one rename; {len(same)} of its files are hard links", seconds)


def broken_dag_is_refused(stage: Stage) -> Result:
    """
    The gate: a DAG that does not compile, and a deletion that came with it.
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
        lambda: stage.daemon.readiness()["reason"] == "revision_refused", "/readyz names it"
    )
    readiness = stage.daemon.readiness()
    check(readiness["code"] == 200, "/readyz stays 200: the last good revision is there")
    check(f"sales_daily.py:{event['line']}" in stage.daemon.get("/")[1], "the status page names it")
    check(files_in(current) == good, "nothing of the refused revision is visible")
    stage.bucket.put("sales_daily.py", content)
    say("uploaded it fixed")
    stage.daemon.wait_for(lambda: files_in(current) == stage.bucket.files, "current is up to date")
    stage.daemon.terminate()
    return Result(
        f"sales_daily.py:{event['line']} named, nothing of it visible; fixed, it went through",
        seconds,
    )


STEPS: tuple[Step[Stage], ...] = (
    ("the folder appears", folder_appears),
    ("a file changes", file_changes),
    ("a new package", package_arrives),
    ("a deletion", file_goes),
    ("S3 fails", source_fails),
    ("SIGTERM", daemon_stops),
    ("a mistyped prefix", prefix_is_mistyped),
    ("a snapshot is swapped", snapshot_is_swapped),
    ("a broken DAG", broken_dag_is_refused),
)
