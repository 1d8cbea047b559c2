"""Close a month in three steps, which must all run the same version of this file."""

import os
import time
from pathlib import Path

import pendulum

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task

EDITION = "first edition"


def note(name):
    with Path(os.environ["NOTES"]).open("a") as notes:
        notes.write(f"{name}: {EDITION}\n")


@dag(
    schedule=None,
    start_date=pendulum.datetime(2025, 1, 1),
    access_control={
        "team_sales": {
            "DAGs": {"can_read", "can_edit"},
            "DAG Runs": {"can_create", "can_read"},
        }
    },
)
def month_end():
    @task
    def collect():
        note("collect")
        while not Path(os.environ["NOTES"] + ".go").exists():
            time.sleep(0.1)

    @task
    def check():
        note("check")

    @task
    def close():
        note("close")

    collect() >> check() >> close()


month_end()
