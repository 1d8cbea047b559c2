"""
The step with DAG versions: a run ends on the release that it began with.
"""

from __future__ import annotations

import time
from pathlib import Path

from demo.airflow.releases import gate_of
from demo.airflow.stage import Stage
from demo.console import say
from demo.releases import run_s3_sync, wait_for_release
from demo.script import Result, check

DAG_ID = "month_end"
EDITIONS = ("first edition", "second edition")
TASKS = ("collect", "check", "close")


def run_keeps_its_version(stage: Stage) -> Result:
    """
    A release is published while the first of three tasks runs; the next run has it.
    """
    if stage.airflow.version != "3":
        return Result("left out: Airflow 2 has no DAG versions", None)
    notes = stage.components.notes
    notes.unlink(missing_ok=True)
    began = time.monotonic()
    run = stage.person.trigger(DAG_ID)
    scheduler = stage.components.processes["scheduler"]
    stage.wait(scheduler, notes.exists, "the first task runs")
    path = stage.checkout / f"{DAG_ID}.py"
    path.write_text(path.read_text().replace(*EDITIONS))
    run_s3_sync(stage, "publish", "checkout", *gate_of(stage))
    wait_for_release(stage)
    stage.wait_until_airflow(lambda: known(stage) == shown(stage), "the new version")
    Path(f"{notes}.go").touch()
    finish(stage, run)
    check(noted(notes) == [f"{name}: {EDITIONS[0]}" for name in TASKS], "all three ran the first")
    say(f"the run that had begun: {', '.join(noted(notes))}")
    notes.unlink()
    finish(stage, stage.person.trigger(DAG_ID))
    check(noted(notes) == [f"{name}: {EDITIONS[1]}" for name in TASKS], "the next has the second")
    say(f"the next run: {', '.join(noted(notes))}")
    return Result(
        "published during the first task: its run ended on the old release, the next one had the "
        "new; nearly all of the time is Airflow's",
        time.monotonic() - began,
    )


def finish(stage: Stage, run: str) -> None:
    """
    Wait until a run has succeeded.
    """
    stage.wait(
        stage.components.processes["scheduler"],
        lambda: stage.person.state_of(DAG_ID, run) == "success",
        f"{run} succeeds",
    )


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


def noted(notes: Path) -> list[str]:
    """
    What tasks have noted.
    """
    return notes.read_text().splitlines() if notes.exists() else []
