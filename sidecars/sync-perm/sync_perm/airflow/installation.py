"""
Finds the image's own Airflow: its command, Python, version, and kinds of DAG permissions.
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
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar_runtime.errors import Problem, SettingsError
from sync_perm.airflow_config import AirflowConfig, name
from sync_perm.difference import Resource

LOOK_SECONDS = 60.0
FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
FABS = (FAB, "airflow.auth.managers.fab.fab_auth_manager.FabAuthManager")  # 2.7, 2.8

# Those of Airflow 2.10 to 3.3, for a later one that defines them elsewhere: without the prefixes,
# Admin would lack the permissions on each DAG.
_RESOURCES = {
    "DAGs": Resource("DAG:", frozenset({"can_read", "can_edit", "can_delete"})),
    "DAG Runs": Resource(
        "DAG Run:", frozenset({"can_create", "can_read", "can_delete", "menu_access"})
    ),
}

# Importing Airflow itself would take seconds, and the module with the names of permissions does not
# need it. The FAB provider of Airflow 3 has its own such module.
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
        except Exception:  # the file has moved, or needs Airflow
            pass
details = names.get("RESOURCE_DETAILS_MAP") or (
    {"DAGs": {"prefix": "DAG:", "actions": names["DAG_ACTIONS"]}} if "DAG_ACTIONS" in names else {}
)
print(json.dumps({
    "airflow": version("apache-airflow") or version("apache-airflow-core"),
    "fab": version("apache-airflow-providers-fab"),
    "resources": {k: [v["prefix"], sorted(v["actions"])] for k, v in details.items()},
}))
"""

# Run for auth managers other than FAB's own class. Importing Airflow extends the path.
_ANCESTORS = """
import importlib, json, sys
import airflow
module, _, name = sys.argv[1].rpartition(".")
sys.path += sys.argv[2:]
try:
    found = getattr(importlib.import_module(module), name)
    answer = {"ancestors": [f"{a.__module__}.{a.__qualname__}" for a in found.__mro__]}
except (AttributeError, ImportError) as error:
    answer = {"error": str(error)}
except Exception as error:  # its text may contain a secret
    answer = {"error": type(error).__name__}
print(json.dumps(answer))
"""


@dataclass(frozen=True, slots=True)
class Installation:
    """
    Args:
        command: The path of ``airflow``.
        python: The interpreter that contains Airflow.
        version: Airflow's version.
        fab: The FAB provider's version; empty if it is part of Airflow (2.7, 2.8) or missing.
        auth_manager: The auth manager to set for passes, if none is configured; else empty.
        resources: The kinds of DAG permissions, by the name that ``access_control`` uses.
        restores_dags: Whether Airflow applies ``access_control`` at each parse. Airflow 3 does so
            if the setting contains "FabAuthManager" (airflow/dag_processing/collection.py).
    """

    command: str
    python: str
    version: str
    fab: str
    auth_manager: str
    resources: Mapping[str, Resource]
    restores_dags: bool

    @property
    def release(self) -> tuple[int, int]:
        """
        Return the major and minor version; (0, 0) if the version is not numeric.
        """
        return _release(self.version)

    @property
    def is_known(self) -> bool:
        """
        Whether our script was tested with this Airflow.
        """
        fab = _release(self.fab)[0]
        if self.release[0] == 3:
            return self.release <= (3, 3) and fab in (2, 3)
        return (2, 7) <= self.release <= (2, 11) and fab in (0, 1)

    def includes_dags(self, choice: str) -> bool:
        """
        Whether to sync DAG permissions: if configured, or for auto if Airflow does not do it.
        """
        return not self.restores_dags if choice == "auto" else choice == "true"


def find_installation(command: str, config: AirflowConfig, *, vouched: bool) -> Installation:
    """
    Inspect the image's Airflow without importing it: 0.05 s of CPU.

    Args:
        vouched: Whether to accept any configured auth manager as FAB's or a subclass.

    Raises:
        SettingsError: Airflow is missing, or its auth manager is not FAB's.
    """
    path = shutil.which(command, path=outer_path(config.environ))
    if path is None:
        problem = "is not on PATH; build this image on your Airflow image"
        raise SettingsError([Problem("SYNC_PERM_AIRFLOW", command, problem)])
    python = _python_of(path, config.environ)
    look = _ask(python, config.environ, _LOOK) if python else {}
    if not look.get("airflow"):
        problem = f"is not an Airflow command: its Python ({python or 'unknown'}) lacks Airflow"
        raise SettingsError([Problem("SYNC_PERM_AIRFLOW", path, problem)])
    resources = {k: Resource(v[0], frozenset(v[1])) for k, v in look["resources"].items()}
    resources = resources or _RESOURCES
    if (1, 0) <= _release(look["fab"]) < (1, 3):
        # Airflow 2.10 has permissions on DAG runs, but these providers do not support them.
        resources = {"DAGs": resources["DAGs"]}
    found = Installation(path, python, look["airflow"], look["fab"], "", resources, False)
    manager = config.value("core", "auth_manager") or ""
    if found.release >= (2, 9) and not found.fab:
        raise _refused(manager, "needs the FAB provider, which this image does not contain")
    if manager and manager not in FABS and not vouched:
        _require_fabs(manager, found, config)
    # The chart configures its own containers through airflow.cfg, which extra containers lack. If
    # this sidecar runs beside Airflow 3 without that file, assume FAB, the chart's default.
    told = FAB if not manager and found.release[0] >= 3 else ""
    restores = found.release[0] >= 3 and "FabAuthManager" in (manager or told)
    return dataclasses.replace(found, auth_manager=told, restores_dags=restores)


def _release(version: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def outer_path(environ: Mapping[str, str]) -> str:
    """
    Return PATH without the sidecar's own virtual environment.
    """
    ours = os.path.dirname(sys.executable)
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if folder != ours)


def _python_of(path: str, environ: Mapping[str, str]) -> str:
    """
    Return the interpreter in the first line of a script; empty if it names none.

    Installers write ``#!/bin/sh`` and ``'''exec' "/path/python" …`` if the path is too long for the
    kernel.
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


def _ask(python: str, environ: Mapping[str, str], program: str, *arguments: str) -> dict[str, Any]:
    """
    Run one of our programs and return the JSON in its last line; empty if it fails.
    """
    try:
        done = subprocess.run(
            [python, "-c", program, *arguments],
            env=dict(environ),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LOOK_SECONDS,
            check=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {}
    return answer


def _require_fabs(manager: str, airflow: Installation, config: AirflowConfig) -> None:
    """
    Import an auth manager as Airflow would, which takes a few seconds.

    Raises:
        SettingsError: The class is not derived from FAB's, or cannot be imported.
    """
    folders = (config.value("core", "plugins_folder"), f"{config.home}/plugins")
    places = [f"{config.home}/config", *(folder for folder in folders if folder)]
    with tempfile.TemporaryDirectory() as home:  # importing Airflow writes there
        environ = {**config.environ, "AIRFLOW_HOME": home}
        if config.has_file:
            environ["AIRFLOW_CONFIG"] = config.path
        answer = _ask(airflow.python, environ, _ANCESTORS, manager, *places)
    if error := answer.get("error", "" if answer else "Airflow cannot be imported"):
        problem = f"cannot be found ({error}); if it is derived from FabAuthManager, "
        raise _refused(manager, f"{problem}set SYNC_PERM_AUTH_MANAGER=fab")
    if not set(FABS).intersection(answer["ancestors"]):
        raise _refused(manager, "is not derived from FabAuthManager, so there is nothing to sync")


def _refused(manager: str, problem: str) -> SettingsError:
    return SettingsError([Problem(name("core", "auth_manager"), manager, problem)])
