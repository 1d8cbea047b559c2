"""
A stand-in for an installed Airflow: its command, version and permission names.

The command is a script of the test, which changes the database with SQL as Airflow would.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

PERMISSIONS = """
RESOURCE_DETAILS_MAP = {
    "DAGs": {"prefix": "DAG:", "actions": {"can_read", "can_edit", "can_delete"}},
    "DAG Runs": {"prefix": "DAG Run:", "actions": {"can_create", "can_read"}},
}
"""
CONFIGURATION = """
class conf:
    @staticmethod
    def getjson(section, key, fallback):
        return fallback
"""
LOADER = "def providers_configuration_loaded(function): return function\n"
# Writes roles and permissions to an empty or existing database, as Airflow does.
BUILDER = """
import contextlib, os, sqlite3

path = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].removeprefix("sqlite:///")
db = sqlite3.connect(path, isolation_level=None)

class Builder:
    ROLE_CONFIGS = [{"role": "Admin"}]
    auth_role_admin = "Admin"

    @property
    def sm(self):
        return self

    def add_permissions(self, update_perms):
        names = ("ab_role", "ab_permission", "ab_view_menu")
        tables = {name: "name TEXT" for name in names}
        tables["ab_permission_view"] = "permission_id INT, view_menu_id INT"
        tables["ab_permission_view_role"] = "permission_view_id INT, role_id INT"
        for name, columns in tables.items():
            db.execute(f"CREATE TABLE IF NOT EXISTS {name} (id INTEGER PRIMARY KEY, {columns})")
        for number, role in enumerate(("Admin", "Public", "Viewer", "User", "Op"), 1):
            db.execute("INSERT OR IGNORE INTO ab_role VALUES (?, ?)", (number, role))
        db.execute("INSERT OR IGNORE INTO ab_permission VALUES (1, 'can_read')")
        db.execute("INSERT OR IGNORE INTO ab_view_menu VALUES (1, 'Website')")
        db.execute("INSERT OR IGNORE INTO ab_permission_view VALUES (1, 1, 1)")

    def sync_roles(self):
        db.execute(
            "INSERT INTO ab_permission_view_role (permission_view_id, role_id)"
            " SELECT 1, id FROM ab_role WHERE (id > 5 OR name IN (GRANTED))"
            " AND id NOT IN (SELECT role_id FROM ab_permission_view_role)"
        )

@contextlib.contextmanager
def get_application_builder():
    yield Builder()
"""
# Grants roles their missing permissions, as Airflow does.
SESSION = """
import contextlib, os, sqlite3

path = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].removeprefix("sqlite:///")

class Session:
    def __init__(self):
        self.db = sqlite3.connect(path, isolation_level=None)
        self.roles = []

    def rollback(self):
        pass

    def commit(self):
        for role in self.roles:
            self.db.execute("DELETE FROM ab_permission_view_role WHERE role_id = ?", (role.id,))
            sql = "INSERT INTO ab_permission_view_role (permission_view_id, role_id) VALUES (?, ?)"
            self.db.executemany(sql, [(one.id, role.id) for one in role.permissions])

@contextlib.contextmanager
def create_session():
    yield Session()
"""
MANAGER = """
from types import SimpleNamespace

class ApplessAirflowSecurityManager:
    def __init__(self, session):
        self.session = session

    def made(self, table, **row):
        where = " AND ".join(f"{name} = ?" for name in row)
        sql = f"SELECT id FROM {table} WHERE {where}"
        found = self.session.db.execute(sql, tuple(row.values())).fetchone()
        if found:
            return found[0]
        sql = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
        return self.session.db.execute(sql, tuple(row.values())).lastrowid

    def add_role(self, name):
        number = self.made("ab_role", name=name)
        sql = "SELECT permission_view_id FROM ab_permission_view_role WHERE role_id = ?"
        has = [SimpleNamespace(id=one) for one, in self.session.db.execute(sql, (number,))]
        self.session.roles.append(SimpleNamespace(id=number, permissions=has))
        return self.session.roles[-1]

    def create_permission(self, action, resource):
        action_id = self.made("ab_permission", name=action)
        resource_id = self.made("ab_view_menu", name=resource)
        row = {"permission_id": action_id, "view_menu_id": resource_id}
        return SimpleNamespace(id=self.made("ab_permission_view", **row))
"""
DAG_ROW = """
from types import SimpleNamespace

class SerializedDagModel:
    @staticmethod
    def get(dag_id, session):
        return SimpleNamespace(data={"dag": {}})
"""
OLD_PERMISSIONS = "DAG_ACTIONS = {'can_read', 'can_edit', 'can_delete'}\n"


class Site:
    """A folder with `bin/airflow` and its site-packages in `packages`."""

    def __init__(
        self,
        folder: Path,
        version: str = "2.11.2",
        fab: str = "1.5.4",
        permissions: str = PERMISSIONS,
    ) -> None:
        self.folder = folder
        self.packages = folder / "packages"
        self.command = folder / "bin" / "airflow"
        fab_permissions = self.packages / "airflow/providers/fab/www/security/permissions.py"
        old_permissions = self.packages / "airflow/security/permissions.py"
        for path in (fab_permissions, old_permissions, self.command):
            path.parent.mkdir(parents=True, exist_ok=True)
        (self.packages / "airflow/__init__.py").write_text("raise ImportError('too heavy')\n")
        (fab_permissions if version.startswith("3") else old_permissions).write_text(permissions)
        self._add("apache_airflow", version)
        if fab:
            self._add("apache_airflow_providers_fab", fab)
        self.write("")

    def add_python(self, program: str = "", granted: str = "'Admin'") -> None:
        """
        Add the modules with which Airflow's Python writes roles, here with SQL.

        Args:
            program: Code that runs first.
            granted: The default roles that may read the website, as an SQL list.
        """
        for module, text in (
            ("__init__", ""),
            ("utils/providers_configuration_loader", LOADER),
            ("utils/session", SESSION),
            ("plugins_manager", "import_errors = {}\n"),
            ("configuration", CONFIGURATION),
            ("www/security_appless", MANAGER),
            ("models/serialized_dag", DAG_ROW),
            ("serialization/serialized_objects", "class BaseSerialization: ...\n"),
            (
                "providers/fab/auth_manager/cli_commands/utils",
                program + BUILDER.replace("GRANTED", granted),
            ),
        ):
            path = self.packages / f"airflow/{module}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def _add(self, distribution: str, version: str) -> None:
        info = self.packages / f"{distribution}-{version}.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )

    def write(self, program: str, shebang: str = f"#!{sys.executable}") -> None:
        self.command.write_text(f"{shebang}\n{program}\n")
        self.command.chmod(0o755)

    def environment(self, **more: str) -> Mapping[str, str]:
        return {
            "PATH": f"{self.command.parent}:/usr/bin:/bin",
            "PYTHONPATH": str(self.packages),
            "HOME": str(self.folder),
            "AIRFLOW_HOME": str(self.folder),
            **more,
        }
