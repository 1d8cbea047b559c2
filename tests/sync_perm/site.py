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

    def add_python(self) -> None:
        """
        Let Airflow be imported.
        """
        (self.packages / "airflow/__init__.py").write_text("")
        (self.packages / "airflow/providers/fab/auth_manager").mkdir(parents=True, exist_ok=True)

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
