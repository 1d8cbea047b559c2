"""A live Airflow 3 on the volume of a real sidecar."""

from pathlib import Path
from typing import Literal

from demo.airflow.components import Components
from tests.support.airflow.databases import Database
from tests.support.airflow.installed import Airflow
from tests.support.airflow.runs import Notes, Runs

Executor = Literal["LocalExecutor", "CeleryExecutor"]
CELERY = ("celery", "worker", "--skip-serve-logs", "--without-mingle", "--without-gossip")


def settings_for(home: Path, url: str, executor: Executor) -> dict[str, str]:
    """Return settings: admin rights, fast detection of dead workers, Celery on the database."""
    return {
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home / "bundles"),
        "AIRFLOW__CORE__AUTH_MANAGER": (
            "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__EXECUTOR": executor,
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "0",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "1",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        "AIRFLOW__CELERY__BROKER_URL": f"sqla+{url}",
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{url}",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
        "AIRFLOW__CELERY__WORKER_ENABLE_REMOTE_CONTROL": "False",
        "AIRFLOW__CELERY__OPERATION_TIMEOUT": "60",
    }


class Live(Runs):
    """The processes of an Airflow, and its runs."""

    def __init__(self, components: Components, database: Database, notes: Notes) -> None:
        super().__init__(components.endpoint, database, notes)
        self.components = components

    @property
    def worker(self) -> str:
        """The process that runs the tasks."""
        return CELERY[0] if CELERY[0] in self.components.processes else "scheduler"

    def start(self) -> None:
        """Start all components, and wait for the API."""
        self.components.start()
        self.components.wait_until_answers()


def open_live(
    airflow: Airflow, database: Database, home: Path, link: Path, notes: Notes, executor: Executor
) -> Live:
    """Return an Airflow that reads a volume; it is not started."""
    settings = settings_for(home, database.url, executor)
    more = [CELERY] if executor == "CeleryExecutor" else []
    components = Components(airflow, database.url, home / "airflow", link, settings, more)
    return Live(components, database, notes)
