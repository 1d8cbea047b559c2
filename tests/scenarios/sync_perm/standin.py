"""
A stand-in for Airflow, for tests of the code around it: it needs 0.1 s of CPU instead
of 5.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import Texts
from tests.support.airflow.databases import Database, MariaDb, Postgres
from tests.support.airflow.installed import Airflow
from tests.support.airflow.permissions import grant, grants_on
from tests.support.airflow.sync_perm import PASS_SECONDS
from tests.support.waiting import wait_until
from tests.sync_perm.site import Site

CONN = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
WEBSITE = """
import psycopg2
from airflow.configuration import conf
with psycopg2.connect(conf.get("database", "sql_alchemy_conn")) as database:
    database.cursor().execute(
        "INSERT INTO ab_permission_view_role (permission_view_id, role_id) SELECT 1, id FROM"
        " ab_role WHERE id > 5 AND id NOT IN (SELECT role_id FROM ab_permission_view_role)"
    )
"""
# What Airflow's own configuration does with a command, and its settings with the user's.
COMMANDS = f"""
import os, subprocess
class conf:
    def get(section, key, fallback=None):
        if key != "sql_alchemy_conn":
            return os.environ.get(f"AIRFLOW__DATABASE__{{key.upper()}}", fallback)
        command = ["echo", "-n", os.environ.get("{CONN}", "")]
        command = os.environ.get("{CONN}_CMD", "").split() or command
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    def has_option(section, key):
        return False
"""
SETTINGS = """
import sqlalchemy
from airflow.configuration import conf
creation = {}
try:
    from airflow_local_settings import creation
except ImportError:
    pass
url = conf.get("database", "sql_alchemy_conn").replace("sql:", "sql+psycopg2:")
engine = sqlalchemy.create_engine(url, **creation)
"""
# Its command line shows when the script has been read, and so when it can be replaced.
FOREVER = """
import os, sys
sleep = "import time; time.sleep(3600)"
os.execv(sys.executable, [sys.executable, "-c", sleep, *sys.argv, "asleep"])
"""
TABLES = """
CREATE TABLE ab_role (id SERIAL PRIMARY KEY, name VARCHAR(64));
CREATE TABLE ab_permission (id SERIAL PRIMARY KEY, name VARCHAR(100));
CREATE TABLE ab_view_menu (id SERIAL PRIMARY KEY, name VARCHAR(250));
CREATE TABLE ab_permission_view (id SERIAL PRIMARY KEY, permission_id INT, view_menu_id INT);
CREATE TABLE ab_permission_view_role (id SERIAL PRIMARY KEY, permission_view_id INT, role_id INT);
CREATE TABLE serialized_dag (
    dag_id TEXT, dag_hash TEXT, data TEXT, data_compressed TEXT, last_updated TIMESTAMP,
    created_at TIMESTAMP, dag_version_id INT
);
CREATE TABLE dag (dag_id TEXT, owners TEXT, fileloc TEXT, processor_subdir TEXT);
CREATE TABLE dag_tag (dag_id TEXT, name TEXT);
"""
ROWS = """
INSERT INTO ab_permission (name) VALUES ('can_read');
INSERT INTO ab_view_menu (name) VALUES ('Website');
INSERT INTO ab_permission_view (permission_id, view_menu_id) VALUES (1, 1);
INSERT INTO ab_role (name) VALUES ('Admin'), ('Public'), ('Viewer'), ('User'), ('Op');
INSERT INTO ab_permission_view_role (permission_view_id, role_id) VALUES (1, 1);
"""


@dataclass(frozen=True)
class StandIn(Airflow):
    """
    An Airflow with few permissions; its command grants the website, or runs a given
    script.
    """

    site: Site

    @classmethod
    def make(cls, folder: Path, version: str = "2.12.0") -> "StandIn":
        """Create it in a new folder."""
        site = Site(folder, version)  # an unknown one, so its whole command runs
        site.add_python()
        (site.packages / "airflow/configuration.py").write_text(COMMANDS)
        (site.packages / "airflow/settings.py").write_text(SETTINGS)
        site.write(WEBSITE)
        return cls("2.11", folder, site)

    def environment(self, url: str | None, home: Path) -> Texts:
        """
        Return the variables of an Airflow component, with the path of its packages.
        """
        return {**super().environment(url, home), "PYTHONPATH": str(self.site.packages)}


def small(server: Postgres | MariaDb) -> Database:
    """
    Create a metadata database with the tables that sync-perm reads, in which nothing
    differs.
    """
    database = server.new_database()
    for statement in (TABLES + ROWS).split(";\n")[:-1]:
        database.query(statement)
    return database


def add_dag(database: Database, dag_id: str, access: Any, size: int = 0) -> None:
    """
    Add a DAG to the tables of the stand-in, serialized in at least so many bytes.
    """
    data = json.dumps({"dag": {"access_control": access}}).ljust(size)
    database.query(
        "INSERT INTO serialized_dag (dag_id, dag_hash, data) VALUES (%s, %s, %s)",
        (dag_id, dag_id, data),
    )


def add_differing_dag(database: Database) -> None:
    """
    Add a DAG `a` that has one of its permissions, and a grant that it does not ask for.
    """
    add_dag(database, "a", {"Viewer": ["can_edit"]})
    database.query("INSERT INTO ab_view_menu (name) VALUES ('DAG:a')")
    database.query("INSERT INTO ab_permission_view VALUES (2, 1, 2)")
    grant(database, "Op", "can_read", "DAG:a")


def is_synced(database: Database) -> bool:
    """Whether the role `team` has the website."""
    return ("team", "can_read") in grants_on(database, "Website")


def wait_until_synced(database: Database) -> None:
    """Wait for a pass that gives the role `team` the website."""
    wait_until(lambda: is_synced(database), "granted", PASS_SECONDS)
