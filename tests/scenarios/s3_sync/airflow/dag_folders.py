"""
DAG folders for a real Airflow of any version: many kinds of broken and of good files.
"""

from __future__ import annotations

import textwrap
from typing import Any, NamedTuple
from unittest.mock import ANY

OF_2 = """
from airflow import DAG
from airflow.decorators import dag, task
from airflow.operators.bash import BashOperator
from airflow.operators.empty import EmptyOperator
from airflow.operators.python import PythonOperator
from airflow.utils.task_group import TaskGroup
"""
OF_3 = """
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, TaskGroup, dag, task
"""
BOTH = """
from datetime import datetime, timedelta
from airflow.timetables.trigger import CronTriggerTimetable
START = datetime(2026, 1, 1)
"""


# Airflow 2 allows a DAG file to query its database.
ORM = b"""from airflow import DAG
from airflow.models import DagModel
from airflow.utils.session import create_session
with create_session() as session:
    session.query(DagModel).count()
"""


def head_for(version: str) -> str:
    """Return the imports of a DAG file for one version of Airflow."""
    return (OF_2 if version.startswith("2") else OF_3) + BOTH


def dag_file(head: str, body: str) -> bytes:
    return (head + textwrap.dedent(body)).encode()


def one_dag(head: str, dag_id: str) -> bytes:
    return dag_file(
        head,
        f"""
        with DAG({dag_id!r}, start_date=START, schedule=None):
            EmptyOperator(task_id="a")
        """,
    )


class Broken(NamedTuple):
    """
    One kind of broken file.

    Args:
        says: A part of the reported problem.
    """

    body: bytes
    line: Any
    says: str


def broken_files(head: str) -> dict[str, Broken]:
    """Return the broken files by path; they require the files of `good_beside`."""
    of_3 = {
        "orm.py": Broken(ORM, 4, "Direct database access via the ORM is not allowed")
    }
    return (of_3 if head.startswith(OF_3) else {}) | {
        "syntax.py": Broken(b"# airflow\nwith DAG(:\n", 2, "SyntaxError: "),
        "missing_module.py": Broken(
            b"from airflow import DAG\ndef load():\n    import sales_lib.tables\nload()\n",
            3,
            "ModuleNotFoundError: No module named 'sales_lib'",
        ),
        "team/uses.py": Broken(
            b"from airflow import DAG\nimport os, sys\n"
            b"sys.path.insert(0, os.path.dirname(__file__))\nimport team_lib\n",
            4,
            "ModuleNotFoundError: No module named 'team_lib.forgotten'",
        ),
        "second.py": Broken(
            one_dag(head, "twice"), None, "the DAG 'twice' is also in first.py"
        ),
        "unserializable.py": Broken(
            dag_file(
                head,
                """
                from airflow.timetables.interval import CronDataIntervalTimetable
                class Ours(CronDataIntervalTimetable):
                    pass
                with DAG("unserializable", start_date=START, schedule=Ours("@daily", "UTC")):
                    EmptyOperator(task_id="a")
            """,
            ),
            None,
            "SerializationError: Failed to serialize",
        ),
        "slow.py": Broken(
            b"from airflow import DAG\nimport time\ntime.sleep(600)\n",
            ANY,  # the line at which the timeout interrupts it
            "DagBag import timeout for slow.py after 0.5s",
        ),
        "exits.py": Broken(
            b"from airflow import DAG\nraise SystemExit(1)\n", 2, "SystemExit: 1"
        ),
    }


def good_beside(head: str) -> dict[str, bytes]:
    """Return files that Airflow does not report as broken."""
    of_2 = {} if head.startswith(OF_3) else {"orm.py": ORM}
    return of_2 | {
        "first.py": one_dag(head, "twice"),
        "team/team_lib/__init__.py": b"from .forgotten import rate\n",
        # Never loaded: the first lacks the word "airflow", the second is ignored.
        "notes.py": b"this is not Python (\n",
        "ignored.py": b"raise RuntimeError('a DAG for Airflow')\n",
        ".airflowignore": b"ignored*\n",  # valid in both syntaxes
        "default.py": dag_file(
            head,
            """
            from airflow.models import Variable
            with DAG(Variable.get("not_set", "default"), start_date=START, schedule=None):
                pass
        """,
        ),
    }


# The content of `airflow_local_settings`: `slow.py` times out on every machine, no
# other file does.
LOCAL_SETTINGS = b"""
def get_dagbag_import_timeout(dag_file_path):
    return 0.5 if dag_file_path.endswith("/slow.py") else 600.0
"""
