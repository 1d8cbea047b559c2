"""
A live Airflow 3 over the releases of a real s3-sync.
"""

from pathlib import Path

from demo.airflow.components import Components
from tests.support.airflow import Airflow
from tests.support.airflow_runs import Notes, Runs
from tests.support.databases import Database


def settings_for(home: Path) -> dict[str, str]:
    """
    What Airflow's components get besides their own: everybody is an admin.
    """
    return {
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home / "bundles"),
        "AIRFLOW__CORE__AUTH_MANAGER": (
            "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "1",
    }


class Live(Runs):
    """
    Its processes, and its runs.
    """

    def __init__(self, components: Components, database: Database, notes: Notes) -> None:
        super().__init__(components.endpoint, database, notes)
        self.components = components

    def start(self) -> None:
        """
        Start all components, and wait for the API.
        """
        self.components.start()
        self.components.wait_until_answers()


def open_live(airflow: Airflow, database: Database, home: Path, link: Path, notes: Notes) -> Live:
    """
    An Airflow over a volume, not started.
    """
    components = Components(airflow, database.url, home / "airflow", link, settings_for(home))
    return Live(components, database, notes)
