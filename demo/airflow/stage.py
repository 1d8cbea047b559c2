"""
The objects that the steps beside Airflow act on, and queries of Airflow's database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from demo import releases
from demo.airflow.components import Components
from demo.airflow.person import Person
from demo.airflow.realm import Realm
from demo.bucket import Bucket
from demo.daemon import Daemon
from tests.support.airflow.databases import Database, Postgres
from tests.support.airflow.installed import Airflow
from tests.support.git.git_repository import Repository

T = TypeVar("T")

LINK = "current"

SIDECAR_SECONDS = 120.0
"""The longest wait for a sidecar beside an Airflow on a small machine."""


@dataclass
class Stage:
    """
    The objects that the steps act on.
    """

    airflow: Airflow
    server: Postgres
    database: Database
    home: Path
    stack: ExitStack
    """The exit stack that ends everything after the last step."""
    components: Components
    person: Person
    """A member of the role in the access_control of `sales_daily`."""
    realm: Realm | None
    """`None` if a requirement is missing."""
    bucket: Bucket
    dags: Path
    """The volume that s3-sync fills."""
    repository: Repository | None = None
    """The same DAGs in git, after the switch to git."""
    daemons: dict[str, Daemon] = field(default_factory=dict)
    """The running sidecars, by program."""
    ended: dict[str, float] = field(default_factory=dict)
    """The sidecars that SIGTERM ended, and the seconds that it took."""
    concerned: Daemon | None = None
    """The daemon whose log is printed when a step fails."""

    @property
    def folder(self) -> Path:
        """
        The DAG folder that Airflow reads.
        """
        return self.dags / LINK

    @property
    def daemon(self) -> Daemon:
        """
        The s3-sync that fills the volume.
        """
        return self.daemons["s3-sync"]

    @property
    def checkout(self) -> Path:
        """
        The checkout of the DAG folder, in which the steps edit.
        """
        return releases.checkout_of(self)

    def start(self, program: str, environment: Mapping[str, str]) -> Daemon:
        """
        Start a sidecar.
        """
        log = self.home / f"{program}.log"
        daemon = Daemon(program, environment, log, patience_seconds=SIDECAR_SECONDS)
        self.daemons[program] = self.concerned = self.stack.enter_context(daemon)
        return daemon

    def end(self, program: str) -> None:
        """
        End a sidecar with SIGTERM.

        Raises:
            StepFailed: It took longer than five seconds, or the exit code was not 0.
        """
        self.concerned = self.daemons.pop(program)
        self.ended[program] = self.concerned.terminate(within_seconds=5)

    def wait(self, daemon: Daemon, condition: Callable[[], T | None], what: str) -> T:
        """
        Return the first true value of a condition that a process should fulfill.
        """
        self.concerned = daemon
        return daemon.wait_for(condition, what)

    def wait_until_airflow(self, condition: Callable[[], T | None], what: str) -> T:
        """
        Return the first true value of a condition that Airflow fulfills by parsing the folder.
        """
        return self.wait(self.components.parser, condition, f"Airflow: {what}")

    def description_of(self, dag_id: str) -> str | None:
        """
        Return a DAG's description in Airflow's database; `None` before the DAG is serialized.
        """
        rows = self.database.query(
            "SELECT description FROM dag WHERE dag_id = %s"
            " AND EXISTS (SELECT 1 FROM serialized_dag s WHERE s.dag_id = dag.dag_id)",
            (dag_id,),
        )
        return str(rows[0][0]) if rows else None

    def wait_for_description(self, text: str) -> float:
        """
        Wait until this is the description of `sales_daily` in Airflow; return the seconds it took.
        """
        began = time.monotonic()
        self.wait_until_airflow(lambda: self.description_of("sales_daily") == text, f"{text!r}")
        return time.monotonic() - began

    def describe(self, text: str) -> None:
        """
        Change the description of `sales_daily` in the checkout.
        """
        path = self.checkout / "sales_daily.py"
        lines = path.read_text().splitlines(keepends=True)
        (number,) = (n for n, line in enumerate(lines) if "description=" in line)
        lines[number] = f'    description="{text}",\n'
        path.write_text("".join(lines))

    def import_errors(self) -> list[str]:
        """
        Return the files with import errors, as in Airflow's web UI.
        """
        sql = "SELECT filename FROM import_error"
        return sorted(Path(name).name for (name,) in self.database.query(sql))
