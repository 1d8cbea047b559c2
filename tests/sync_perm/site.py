"""
A stand-in for an installed Airflow: its command and version.

The command is a script of the test, which changes the database with SQL as Airflow
would.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from sync_perm.inside_airflow import OF_FAB, OF_FAB_SINCE_3


class Site:
    """A folder with `bin/airflow` and its site-packages in `packages`."""

    def __init__(
        self, folder: Path, version: str = "2.11.2", fab: str = "1.5.4"
    ) -> None:
        self.folder = folder
        self.packages = folder / "packages"
        self.command = folder / "bin" / "airflow"
        for path in (self.packages / "airflow", self.command.parent):
            path.mkdir(parents=True, exist_ok=True)
        (self.packages / "airflow/__init__.py").write_text(
            "raise ImportError('too heavy')\n"
        )
        self._add("apache_airflow", version)
        if fab:
            self._add("apache_airflow_providers_fab", fab)
            for name, file in (OF_FAB | OF_FAB_SINCE_3).items():
                path = self.packages / "airflow/providers/fab/auth_manager" / file
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a") as source:
                    source.write(f"def {name}(): ...\n")
        self.write("")

    def add_python(self, auth_manager: str = "") -> None:
        """
        Let Airflow be imported, and the module of FAB's auth manager.
        """
        (self.packages / "airflow/__init__.py").write_text("")
        folder = self.packages / "airflow/providers/fab/auth_manager"
        (folder / "fab_auth_manager.py").write_text(auth_manager)

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
