"""
Runs sync-perm on SQLite, without its loop; Airflow's command is a script that edits the database.
"""

import sys
from dataclasses import replace
from pathlib import Path

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.http.endpoint import registry_of
from sync_perm.airflow.passes import AirflowPasses
from sync_perm.airflow_config import AirflowConfig
from sync_perm.comparison import Comparison
from sync_perm.cycle import Session
from sync_perm.database.connection import find_source
from sync_perm.metrics import PermMetrics
from sync_perm.pace import Pace
from sync_perm.plan import CliCause
from sync_perm.role_file.file import RoleFile
from sync_perm.settings import load_settings
from sync_perm.sidecar import SyncPerm
from sync_perm.status import Status
from tests.support.raising import raised
from tests.sync_perm.given import AIRFLOW_2, Sqlite, tables
from tests.sync_perm.site import Site

FIX = """
import os, sqlite3, sys
print("arguments", *sys.argv[1:])
path = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].removeprefix("sqlite:///")
open(path + ".passes", "a").write("x")
with sqlite3.connect(path) as db:
    db.execute(
        "INSERT INTO ab_permission_view_role (permission_view_id, role_id) "
        "SELECT 1, id FROM ab_role WHERE name IN ('Admin', 'team') AND id NOT IN "
        "(SELECT role_id FROM ab_permission_view_role)"
    )
"""
# Kills Airflow while it writes the definition.
UNREAD = """
import os
if "/empty/" in os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]:
    os.kill(os.getpid(), 9)
"""
CONN = "AIRFLOW__CORE__SQL_ALCHEMY_CONN"
CONN_CMD = f"{CONN}_CMD"


class Sidecar:
    """
    A sidecar without its loop, on SQLite, with a stand-in for Airflow's command.

    Attributes:
        reads_definition: Whether the first cycle must read the roles' definition, in a process.
    """

    def __init__(self, folder: Path, sqlite: Sqlite) -> None:
        self.pace = Pace(quiet_seconds=0.05, settle_seconds=0.0)
        self.site = Site(folder / "site")
        self.cli_because: CliCause | None = "setting"
        self.site.write(FIX)
        self.site.add_python()
        self.sqlite = sqlite
        self.folder = folder
        self.airflow = AIRFLOW_2
        self.reads_definition = False
        self.include_dags = False
        sqlite.run("INSERT INTO ab_permission VALUES (1, 'can_read')")
        sqlite.run("INSERT INTO ab_view_menu VALUES (1, 'Website')")
        sqlite.run("INSERT INTO ab_permission_view VALUES (1, 1, 1)")
        for number, role in enumerate(("Admin", "Public", "Viewer", "User", "Op"), 1):
            sqlite.run("INSERT INTO ab_role VALUES (?, ?)", number, role)
        sqlite.run("INSERT INTO ab_permission_view_role VALUES (1, 1, 1)")

    def begin(self, **settings: str) -> Session:
        environ = self.site.environment(
            SYNC_PERM_TARGETED="false",
            SYNC_PERM_INCLUDE_DAGS="false",
            **(settings if CONN_CMD in settings else {CONN: self.sqlite.address.url, **settings}),
        )
        config = AirflowConfig(environ)
        airflow = replace(self.airflow, command=str(self.site.command), python=sys.executable)
        self.metrics = PermMetrics("0", "0")
        read = load_settings(environ)[0]
        file = RoleFile(read.roles, airflow.resources) if read.roles else None
        comparison = Comparison(airflow, include_dags=self.include_dags, file=file)
        if not self.reads_definition:
            comparison.define(tables())
        self.sidecar = SyncPerm(
            read,
            find_source(config),
            AirflowPasses(airflow, config, str(self.folder), self.cli_because),
            comparison,
            self.metrics,
            Status(self.metrics),
            self.pace,
        )
        return self.sidecar.begin()

    def running(self, **settings: str) -> Session:
        """Begin a session, and run its first cycle."""
        session = self.begin(**settings)
        run(session)
        return session

    def add_role(self) -> None:
        self.sqlite.run("INSERT INTO ab_role (name) VALUES ('team')")

    def grant_role(self) -> None:
        """Grant that role its missing permission, as the web server does."""
        self.sqlite.run(
            "INSERT INTO ab_permission_view_role (permission_view_id, role_id)"
            " SELECT 1, id FROM ab_role WHERE name = 'team'"
        )

    def counted(self) -> dict[tuple[str, str], float]:
        """Return how many passes the metrics count, by reason and result."""
        (family,) = (
            one
            for one in registry_of(self.metrics.families).collect()
            if one.name == "sync_perm_passes"
        )
        return {
            (one.labels["reason"], one.labels["result"]): one.value
            for one in family.samples
            if one.name.endswith("_total") and one.value
        }

    @property
    def mode(self) -> tuple[object, dict[str, float]]:
        """The mode on the status page, and its causes in the metrics."""
        (family,) = (
            one
            for one in registry_of(self.metrics.families).collect()
            if one.name == "sync_perm_cli"
        )
        causes = {one.labels["reason"]: one.value for one in family.samples if one.value}
        return self.sidecar.details()["mode"], causes

    @property
    def passes(self) -> int:
        path = Path(f"{self.sqlite.path}.passes")
        return len(path.read_text()) if path.exists() else 0


def run(session: Session, *, is_asked: bool = False) -> Outcome:
    return session.cycle(Fence(is_asked_for=is_asked))


def failure(session: Session) -> SidecarError:
    return raised(SidecarError, run, session)
