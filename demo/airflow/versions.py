"""
The step with DAG versions: all tasks of a run use the release with which the run started.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from demo.airflow.releases import gate_of
from demo.airflow.stage import Stage
from demo.console import say
from demo.releases import run_s3_sync, wait_for_release
from demo.script import Result, check
from tests.support.airflow.permissions import grant

DAG_ID = "month_end"
EDITIONS = ("first edition", "second edition")
ROLE = "team_sales"
TASKS = ("collect", "check", "close")


def run_keeps_its_version(stage: Stage) -> Result:
    """
    A release is published while the first of three tasks runs; the next run uses it. A cleared
    task of the old run uses the old release, and so does a new run after a rollback.
    """
    if stage.airflow.version != "3":
        return Result("skipped: Airflow 2 has no DAG versions", None)
    notes = stage.components.notes
    notes.unlink(missing_ok=True)
    began = time.monotonic()
    run = stage.person.trigger(DAG_ID)
    scheduler = stage.components.processes["scheduler"]
    stage.wait(scheduler, notes.exists, "the first task runs")
    path = stage.checkout / f"{DAG_ID}.py"
    before = path.read_text()
    path.write_text(before.replace(*EDITIONS))
    run_s3_sync(stage, "publish", "checkout", *gate_of(stage))
    wait_for_version(stage)
    Path(f"{notes}.go").touch()
    finish(stage, run, "the run in progress", EDITIONS[0])
    finish(stage, stage.person.trigger(DAG_ID), "the next run", EDITIONS[1])
    for resource in ("DAG Runs", "Task Instances"):
        grant(stage.database, ROLE, "can_edit", resource)
    stage.wait(
        stage.components.web, lambda: stage.person.clear(DAG_ID, run, TASKS[-1]), "it is cleared"
    )
    finish(stage, run, "a cleared task of the old run", EDITIONS[0], TASKS[-1:])
    run_s3_sync(stage, "rollback")
    path.write_text(before)
    wait_for_version(stage)
    finish(stage, stage.person.trigger(DAG_ID), "a run after the rollback", EDITIONS[0])
    return Result(
        "published during the first task: the run finished with the old release, the next run used "
        "the new one; a cleared task and a run after a rollback used the old one; most of the time "
        "is Airflow's",
        time.monotonic() - began,
    )


def wait_for_version(stage: Stage) -> None:
    """
    Wait until the volume shows the checkout and Airflow knows that version.
    """
    began = time.monotonic()
    ours = wait_for_release(stage)
    stage.wait_until_airflow(lambda: known(stage) == shown(stage), "the new version")
    seconds = time.monotonic() - began
    say(f"the volume shows it after {ours:.2f} s, Airflow knows the version after {seconds:.1f} s")


def finish(stage: Stage, run: str, what: str, edition: str, tasks: Sequence[str] = TASKS) -> None:
    """
    Wait until a run succeeds, and check the notes that its tasks wrote.
    """
    stage.wait(
        stage.components.processes["scheduler"],
        lambda: stage.person.state_of(DAG_ID, run) == "success",
        f"{run} succeeds",
    )
    notes = stage.components.notes
    noted = notes.read_text().splitlines()
    say(f"{what}: {', '.join(noted)}")
    check(noted == [f"{name}: {edition}" for name in tasks], f"{what} uses the {edition}")
    notes.unlink()


def known(stage: Stage) -> str | None:
    """
    Return the newest version of the DAG that Airflow knows.
    """
    sql = (
        "SELECT bundle_version FROM dag_version WHERE dag_id = %s"
        " ORDER BY version_number DESC LIMIT 1"
    )
    rows = stage.database.query(sql, (DAG_ID,))
    return str(rows[0][0]) if rows else None


def shown(stage: Stage) -> str:
    """
    Return the version that the volume shows.
    """
    return stage.folder.readlink().name
