"""
What Airflow's process finds around it: folders of its own, and the real configuration.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress

from sidecar_runtime.errors import Problem, SettingsError
from sync_perm.airflow_config import AirflowConfig, name
from sync_perm.connection import Address
from sync_perm.installation import outer_path


def make_folder() -> str:
    """
    Make the folder that all passes of this process share; Kubernetes removes it with the pod.

    Raises:
        SettingsError: Nothing below TMPDIR can be written.
    """
    try:
        return tempfile.mkdtemp(prefix="sync-perm-")
    except OSError:
        problem = "cannot be written; mount an emptyDir at /tmp"
        folder = os.environ.get("TMPDIR", "/tmp")  # noqa: S108 - what tempfile tries, too
        raise SettingsError([Problem("TMPDIR", folder, problem)]) from None


def environment(config: AirflowConfig, address: Address, folder: str) -> Mapping[str, str]:
    """
    Return the environment of a pass.

    Airflow writes into HOME, AIRFLOW_HOME and its log folder at each start, so it gets its own;
    what it reads there stays where it is, as far as nothing else was configured.
    """
    environ = dict(config.environ)
    ours = {key for key in environ if key.startswith("SYNC_PERM_")}
    for key in ours:
        del environ[key]
    home = environ.get("HOME") or os.path.expanduser("~")
    with suppress(FileExistsError):
        os.mkdir(f"{folder}/logs")
    environ |= {
        "PATH": outer_path(config.environ),
        "HOME": folder,
        "AIRFLOW_HOME": folder,
        name("database", "sql_alchemy_conn"): address.url,
        name("logging", "base_log_folder"): f"{folder}/logs",
        name("logging", "dag_processor_manager_log_location"): f"{folder}/logs/manager.log",
        name("logging", "remote_logging"): "False",
        name("scheduler", "child_process_log_directory"): f"{folder}/logs/scheduler",
        name("core", "load_examples"): "False",
    }
    # An arbitrary UID has no name in /etc/passwd, and Airflow asks for one.
    environ.setdefault("USER", "airflow")
    # Where HOME was, there may be a user's site-packages, in the official image Airflow itself.
    environ.setdefault("PYTHONUSERBASE", f"{home}/.local")
    if config.has_file:
        environ["AIRFLOW_CONFIG"] = config.path
    for section, key, file in (
        ("webserver", "config_file", "webserver_config.py"),
        ("fab", "config_file", "webserver_config.py"),
        ("core", "plugins_folder", "plugins"),
    ):
        real = f"{config.home}/{file}"
        if config.value(section, key) is None and os.path.exists(real):
            environ[name(section, key)] = real
    return environ
