"""
The steps from a checkout to Airflow: s3-sync publishes and downloads, Airflow reads.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from demo import releases
from demo.airflow.stage import Stage
from demo.console import say
from demo.releases import run_s3_sync, wait_for_release
from demo.s3_sync import files_in
from demo.script import Result, check

DAGS = Path(__file__).with_name("dags")
FIRST, SECOND = "orders of yesterday", "orders of yesterday and today"
SETTINGS = {
    "S3_SYNC_SOURCE": "release",
    "S3_SYNC_LAYOUT": "snapshot",
    "S3_SYNC_GATE": "syntax",
}
BROKEN = "sales_daily.py"
SYNTAX_ERROR = "\nwith DAG('sales_daily'\n    pass\n"


def gate_of(stage: Stage) -> tuple[str, ...]:
    """
    Return the options with which this Airflow is the gate of a publish.
    """
    return ("--gate", "airflow", "--airflow-python", str(stage.airflow.bin / "python"))


def release_is_published(stage: Stage) -> Result:
    """
    Publish the DAGs; a new pod's daemon downloads them.
    """
    shutil.copytree(DAGS, stage.checkout, ignore=shutil.ignore_patterns("__pycache__"))
    run_s3_sync(stage, "publish", "checkout", *gate_of(stage))
    say(f"started s3-sync with {' '.join(f'{k}={v}' for k, v in SETTINGS.items())}")
    began = time.monotonic()
    given = stage.bucket.daemon_environment(releases.KEY_PATH, stage.dags, stage.home)
    daemon = stage.start("s3-sync", given | SETTINGS)
    stage.wait(daemon, lambda: daemon.readiness()["ready"], "/readyz answers 200")
    seconds = time.monotonic() - began
    wait_for_release(stage)
    return Result(
        f"/readyz returned 200 with {len(files_in(stage.folder))} DAGs of one release in the "
        "folder; includes the process start",
        seconds,
    )


def airflow_starts(stage: Stage) -> Result:
    """
    Start Airflow on the folder, as the kubelet does after a native sidecar has started.
    """
    began = time.monotonic()
    stage.components.start()
    say(f"started: {', '.join(f'airflow {name}' for name in stage.components.processes)}")
    say(f"DAG folder: {stage.folder}")
    stage.wait_until_airflow(
        lambda: stage.description_of("sales_daily") == FIRST and stage.description_of("db_cleanup"),
        "the DAGs are in its database",
    )
    seconds = time.monotonic() - began
    stage.concerned = stage.components.web
    stage.components.wait_until_answers()
    if errors := stage.import_errors():
        say(f"import errors, because their roles do not exist yet: {', '.join(errors)}")
    return Result(
        "the DAGs are in the tables dag and serialized_dag; most of the time is Airflow's own "
        "start",
        seconds,
    )


def release_follows(stage: Stage) -> Result:
    """
    A release that changes a DAG.
    """
    stage.describe(SECOND)
    run_s3_sync(stage, "publish", "checkout", *gate_of(stage))
    stage.concerned = stage.daemon
    ours = wait_for_release(stage)
    theirs = stage.wait_for_description(SECOND)
    return shared("a changed DAG", ours, theirs)


def bad_release_is_refused(stage: Stage) -> Result:
    """
    A DAG that does not compile: refused in CI, and by the daemon if CI has no gate.
    """
    path, daemon = stage.checkout / BROKEN, stage.daemon
    good, content = files_in(stage.folder), path.read_text()
    path.write_text(content + SYNTAX_ERROR)
    run_s3_sync(stage, "publish", "checkout", *gate_of(stage), fails=2)
    run_s3_sync(stage, "publish", "checkout")
    began = time.monotonic()
    event = stage.wait(
        daemon, lambda: daemon.find_event("revision_refused", path=BROKEN), "it is refused"
    )
    seconds = time.monotonic() - began
    say(f"the daemon: refused {event['revision']}: {BROKEN}:{event['line']}: {event['problem']}")
    stage.wait(daemon, lambda: daemon.readiness()["reason"] == "revision_refused", "/readyz")
    check(daemon.readiness()["code"] == 200, "/readyz stays 200")
    wait_for_parse(stage)
    check(files_in(stage.folder) == good, "nothing of it is visible")
    check(stage.import_errors() == [], "Airflow has no import error")
    check(stage.person.may_read("sales_daily"), "Airflow's API still shows the DAG")
    check(stage.description_of("sales_daily") == SECOND, "the last good DAG stays")
    path.write_text(content)
    return Result(
        f"publish refused {BROKEN}:{event['line']}; when published without a gate, the daemon "
        "refused it; Airflow parsed the last good release again, without an import error",
        seconds,
    )


def release_is_rolled_back(stage: Stage) -> Result:
    """
    A rollback from the bad release, and another to the first release.
    """
    daemon = stage.daemon
    run_s3_sync(stage, "rollback")
    stage.wait(daemon, lambda: daemon.readiness()["reason"] is None, "/readyz reports no failure")
    check(stage.description_of("sales_daily") == SECOND, "the last good DAG stays")
    run_s3_sync(stage, "rollback")
    stage.describe(FIRST)
    stage.concerned = daemon
    ours = wait_for_release(stage)
    theirs = stage.wait_for_description(FIRST)
    run_s3_sync(stage, "releases")
    return shared("the first release again", ours, theirs)


def wait_for_parse(stage: Stage) -> None:
    """
    Wait until Airflow has read every file again.
    """
    ((began,),) = stage.database.query("SELECT clock_timestamp()")
    sql = "SELECT min(last_parsed_time) > %s FROM dag"
    stage.wait_until_airflow(
        lambda: stage.database.query(sql, (began,))[0][0], "it reads the folder again"
    )


def shared(what: str, ours: float, theirs: float) -> Result:
    """
    Return a result that separates the sidecar's time from Airflow's.
    """
    return Result(
        f"{what}: in the folder after {ours:.2f} s (sidecar), in Airflow's database {theirs:.1f} s "
        "later",
        ours + theirs,
    )
