"""
The environment of Airflow's process: its own folders, and the real configuration.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from sidecar_runtime.errors import Problem, SettingsError, SidecarError
from sidecar_runtime.private_folder import PrivateFolder
from sync_perm.airflow.installation import Installation, outer_path
from sync_perm.airflow_config import AirflowConfig, name
from sync_perm.database.connection import Address, parse_url


@contextmanager
def own_folder() -> Iterator[str]:
    """
    Yield the private folder that all passes of this process share, and remove it at the end.

    Raises:
        SettingsError: No folder below TMPDIR is writable.
    """
    try:
        folder = PrivateFolder("sync-perm-", tempfile.gettempdir())
    except OSError:
        problem = "is not writable; mount an emptyDir at /tmp"
        parent = os.environ.get("TMPDIR", "/tmp")  # noqa: S108 - tempfile tries it too
        raise SettingsError([Problem("TMPDIR", parent, problem)]) from None
    try:
        yield folder.path
    finally:
        folder.remove()


@contextmanager
def empty_database(folder: str) -> Iterator[Address]:
    """
    Yield the address of an SQLite database that does not exist yet, and remove it at the end.

    Raises:
        SidecarError: The folder is not writable.
    """
    place = f"{folder}/empty"
    try:
        os.mkdir(place)
    except OSError as error:
        raise unwritable(folder, error) from None
    try:
        yield parse_url("TMPDIR", f"sqlite:///{place}/airflow.db", "")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def environment(
    airflow: Installation, config: AirflowConfig, address: Address, folder: str
) -> Mapping[str, str]:
    """
    Return the environment of a pass.

    Airflow writes into HOME, AIRFLOW_HOME and its log folder at each start, so it gets separate
    ones. Files that it reads there are still taken from the real folders by default.
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
        "TMPDIR": folder,
        "AIRFLOW_HOME": folder,
        name("database", "sql_alchemy_conn"): address.url,
        name("logging", "base_log_folder"): f"{folder}/logs",
        name("logging", "dag_processor_manager_log_location"): f"{folder}/logs/manager.log",
        name("logging", "remote_logging"): "False",
        name("scheduler", "child_process_log_directory"): f"{folder}/logs/scheduler",
        name("core", "load_examples"): "False",
    }
    # Airflow imports modules from there that airflow.cfg may name, such as logging_config_class.
    with suppress(FileExistsError):
        os.symlink(f"{config.home}/config", f"{folder}/config")
    if airflow.auth_manager:
        environ[name("core", "auth_manager")] = airflow.auth_manager
    # An arbitrary UID has no name in /etc/passwd, but Airflow needs one.
    environ.setdefault("USER", "airflow")
    # The real HOME may contain a user's site-packages; in the official image it contains Airflow.
    environ.setdefault("PYTHONUSERBASE", f"{home}/.local")
    if config.has_file:
        environ["AIRFLOW_CONFIG"] = config.path
    for section, key, file in (
        ("webserver", "config_file", "webserver_config.py"),
        ("fab", "config_file", "webserver_config.py"),
        ("core", "plugins_folder", "plugins"),
        ("core", "dags_folder", "dags"),
    ):
        real = f"{config.home}/{file}"
        if config.value(section, key) is None and os.path.exists(real):
            environ[name(section, key)] = real
    return environ


def web_config(config: AirflowConfig) -> str:
    """
    Return the path of webserver_config.py, which may name a security manager; empty without one.
    """
    given = (config.value(section, "config_file") for section in ("fab", "webserver"))
    paths = (*given, f"{config.home}/webserver_config.py")
    return next((path for path in paths if path and os.path.exists(path)), "")


def unwritable(folder: str, error: OSError) -> SidecarError:
    """
    Return the failure for a folder of ours that is full or missing.
    """
    return SidecarError(
        "tmpdir_failed",
        f"cannot write to {folder}: {error.strerror}",
        "Free some space there; a pass needs 1 MiB of TMPDIR.",
    )
