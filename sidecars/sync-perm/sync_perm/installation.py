"""
Finds the image's own Airflow: its command, Python, version, and kinds of DAG permissions.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar_runtime import child
from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.fence import Fence
from sync_perm.airflow_config import AirflowConfig, name
from sync_perm.compare import Kinds, Resource

LOOK_SECONDS = 120.0
RUNNER = Path(__file__).with_name("runner.py")
KINDS = {
    "DAGs": Resource("DAG:", frozenset({"can_delete", "can_edit", "can_read"})),
    "DAG Runs": Resource(
        "DAG Run:", frozenset({"can_create", "can_delete", "can_read", "menu_access"})
    ),
}
"""The kinds of DAG permissions of Airflow 2.10 to 3.4; before, there was only the first."""
FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"


@dataclass(frozen=True, slots=True)
class Installation:
    """
    Args:
        command: The path of ``airflow``.
        python: The interpreter that contains Airflow.
        version: Airflow's version.
        fab: The FAB provider's version; empty if it is part of Airflow (2.7, 2.8) or missing.
        auth_manager: The auth manager to set for passes, if none is configured; else empty.
        resources: The kinds of DAG permissions.
        restores_dags: Whether Airflow applies ``access_control`` at each parse.
        arguments: What Airflow passes to its database driver besides the URL.
    """

    command: str
    python: str
    version: str
    fab: str
    auth_manager: str
    resources: Kinds
    restores_dags: bool
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)

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
        if self.release == (2, 11):
            return fab == 1
        return (3, 0) <= self.release <= (3, 4) and fab in (2, 3)

    def includes_dags(self, choice: str) -> bool:
        """
        Whether to sync DAG permissions: if configured, or for auto if Airflow does not do it.
        """
        return not self.restores_dags if choice == "auto" else choice == "true"


def find_installation(command: str, config: AirflowConfig) -> Installation:
    """
    Inspect the image's Airflow: 0.05 s of CPU, or 2 to 4 s if its auth manager must be imported.

    Raises:
        SettingsError: Airflow is missing, its auth manager is not FAB's, or the arguments for its
            database driver cannot be read.
    """
    path = shutil.which(command, path=outer_path(config.environ))
    if path is None:
        problem = "is not on PATH; build this image on your Airflow image"
        raise SettingsError([Problem("SYNC_PERM_AIRFLOW", command, problem)])
    python = _python_of(path, config.environ)
    manager = config.value("core", "auth_manager") or ""
    arguments = config.value("database", "sql_alchemy_connect_args") or ""
    told = _look(python, config, {"manager": manager, "arguments": arguments}) if python else {}
    if not told.get("airflow"):
        problem = f"is not an Airflow command: its Python ({python or 'unknown'}) lacks Airflow"
        raise SettingsError([Problem("SYNC_PERM_AIRFLOW", path, problem)])
    if told["arguments"] is None:
        setting = name("database", "sql_alchemy_connect_args")
        problem = "cannot be imported as a mapping of plain values"
        raise SettingsError([Problem(setting, arguments, problem)])
    version, fab, problem = told["airflow"], told["fab"], told["problem"]
    if _release(version) >= (2, 9) and not fab:
        problem = "needs the FAB provider, which this image does not contain"
    if problem:
        raise SettingsError([Problem(name("core", "auth_manager"), manager, problem)])
    # The chart configures its own containers through airflow.cfg, which extra containers lack. If
    # this sidecar runs beside Airflow 3 without that file, assume FAB, the chart's default.
    assumed = FAB if not manager and _release(version)[0] >= 3 else ""
    # Airflow 2.10 has permissions on DAG runs, but FAB providers before 1.3 do not support them.
    is_old = _release(version) < (2, 10) or (1, 0) <= _release(fab) < (1, 3)
    kinds = {"DAGs": KINDS["DAGs"]} if is_old else KINDS
    restores = told["restores_dags"]
    return Installation(path, python, version, fab, assumed, kinds, restores, told["arguments"])


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


def _look(python: str, config: AirflowConfig, given: Mapping[str, str]) -> dict[str, Any]:
    """
    Let the script look at the Airflow beside it; empty if that fails.
    """
    folders = (config.value("core", "plugins_folder"), f"{config.home}/plugins")
    places = [f"{config.home}/config", *(folder for folder in folders if folder)]
    said = child.Kept()
    with tempfile.TemporaryDirectory() as home:  # importing Airflow writes there
        environ = {**config.environ, "AIRFLOW_HOME": home}
        if config.has_file:
            environ["AIRFLOW_CONFIG"] = config.path
        argv = [python, str(RUNNER), "look", json.dumps({**given, "places": places})]
        with suppress(OSError, child.DeadlinePassed, ValueError):
            command = child.Command(argv, environ, "/")
            child.run(command, Fence(), LOOK_SECONDS, said, lambda _: None)
            told: dict[str, Any] = json.loads(str(said))
            return told
    return {}
