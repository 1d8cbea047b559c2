"""
The image's own Airflow: its command, its Python, its version, and what it calls DAG permissions.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar_runtime.errors import Problem, SettingsError
from sync_perm.airflow_config import AirflowConfig, name
from sync_perm.difference import Resource

LOOK_SECONDS = 60.0
FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"

# Airflow itself is not imported, which would cost seconds: the module with the names of
# permissions needs nothing else of it. The FAB provider of Airflow 3 has its own.
_LOOK = """
import importlib.util, json, runpy
from importlib import metadata

def version(distribution):
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""

spec = importlib.util.find_spec("airflow")
names = {}
for path in ("providers/fab/www/security/permissions.py", "security/permissions.py"):
    for root in spec.submodule_search_locations if spec else ():
        try:
            names = names or runpy.run_path(root + "/" + path)
        except OSError:
            pass
details = names.get("RESOURCE_DETAILS_MAP") or (
    {"DAGs": {"prefix": "DAG:", "actions": names["DAG_ACTIONS"]}} if names else {}
)
print(json.dumps({
    "airflow": version("apache-airflow") or version("apache-airflow-core"),
    "fab": version("apache-airflow-providers-fab"),
    "resources": {k: [v["prefix"], sorted(v["actions"])] for k, v in details.items()},
}))
"""


@dataclass(frozen=True, slots=True)
class Installation:
    """
    Args:
        command: Path of ``airflow``.
        python: The interpreter that has Airflow.
        version: Of Airflow.
        fab: Of the FAB provider; empty where it is part of Airflow (2.7, 2.8) or missing.
        auth_manager: What Airflow must be told, because nothing here does; else empty.
        resources: The kinds of DAG permissions, by the name that ``access_control`` uses.
    """

    command: str
    python: str
    version: str
    fab: str
    auth_manager: str
    resources: Mapping[str, Resource]

    @property
    def release(self) -> tuple[int, int]:
        """
        Return major and minor version; (0, 0) for one that is not a number.
        """
        match = re.match(r"(\d+)\.(\d+)", self.version)
        return (int(match[1]), int(match[2])) if match else (0, 0)

    @property
    def is_known(self) -> bool:
        """
        Tell whether our script was tried with this Airflow.
        """
        fab = self.fab.partition(".")[0]
        if self.release[0] == 3:
            return self.release <= (3, 3) and fab in ("2", "3")
        return (2, 7) <= self.release <= (2, 11) and fab in ("", "1")

    def includes_dags(self, choice: str) -> bool:
        """
        Tell whether DAG permissions are synced: where nothing else does it, or it is asked for.
        """
        return self.release[0] < 3 if choice == "auto" else choice == "true"


def find_installation(command: str, config: AirflowConfig) -> Installation:
    """
    Look at the image's Airflow, without importing it: 0.05 s of CPU.

    Raises:
        SettingsError: There is none, or its auth manager is not FAB's.
    """
    path = shutil.which(command, path=outer_path(config.environ))
    if path is None:
        problem = "is not on PATH; build this image on your Airflow image"
        raise SettingsError([Problem("SYNC_PERM_AIRFLOW", command, problem)])
    python = _python_of(path, config.environ)
    look = _look(python, config.environ) if python else {}
    if not look.get("airflow"):
        problem = f"is not an Airflow command: its Python ({python or 'unknown'}) has no Airflow"
        raise SettingsError([Problem("SYNC_PERM_AIRFLOW", path, problem)])
    resources = {k: Resource(v[0], frozenset(v[1])) for k, v in look["resources"].items()}
    found = Installation(path, python, look["airflow"], look["fab"], "", resources)
    return dataclasses.replace(found, auth_manager=_missing_auth_manager(found, config))


def outer_path(environ: Mapping[str, str]) -> str:
    """
    Return PATH without our own virtual environment.
    """
    ours = os.path.dirname(sys.executable)
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if folder != ours)


def _python_of(path: str, environ: Mapping[str, str]) -> str:
    """
    Return the interpreter that the first line of a script names; empty where it names none.

    Installers write ``#!/bin/sh`` and ``'''exec' "/path/python" …`` where the path is too long
    for the kernel.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as script:
            first, second = script.readline(), script.readline()
    except OSError:
        return ""
    words = shlex.split(first[2:]) if first.startswith("#!") else []
    if match := re.match(r"'''exec'\s+(?:\"([^\"]+)\"|(\S+))", second):
        words = [match[1] or match[2]]
    if words and os.path.basename(words[0]) == "env":
        words = [shutil.which(words[-1], path=outer_path(environ)) or ""]
    return words[0] if words and "python" in os.path.basename(words[0]) else ""


def _look(python: str, environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [python, "-c", _LOOK],
            env=dict(environ),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LOOK_SECONDS,
            check=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    return answer


def _missing_auth_manager(found: Installation, config: AirflowConfig) -> str:
    """
    Return the auth manager to pass to Airflow; empty where it knows by itself.

    The chart tells its own containers by airflow.cfg, and an extra container nothing. Who puts
    this sidecar beside Airflow 3 and does not mount that file has FAB, like the chart's default.

    Raises:
        SettingsError: It is another one, or its provider is missing.
    """
    manager = config.value("core", "auth_manager") or ""
    if manager and "fab" not in manager.lower():
        raise _refused(manager, "is not FAB's, so there is nothing to sync")
    if found.release >= (2, 9) and not found.fab:
        raise _refused(manager, "is FAB's only with its provider, which this image does not have")
    return FAB if not manager and found.release[0] >= 3 else ""


def _refused(manager: str, problem: str) -> SettingsError:
    return SettingsError([Problem(name("core", "auth_manager"), manager, problem)])
