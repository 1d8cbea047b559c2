"""
The settings of sync-perm.

What Airflow itself reads (`AIRFLOW_HOME`, `AIRFLOW__…`) keeps Airflow's names: see
:mod:`sync_perm.database.connection` and :mod:`sync_perm.airflow.installation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar_runtime.parsers import absolute_path, boolean, choice
from sidecar_runtime.settings import CommonSettings, inherited, load, setting, slips

PREFIX = "SYNC_PERM_"

INSTEAD = slips(
    PREFIX,
    {
        "INTERVAL": "INTERVAL PERIOD SLEEP",
        "SYNC_PERM_INCLUDE_DAGS": "DAGS",
        "AIRFLOW_HOME": "AIRFLOW_HOME",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "SQL_ALCHEMY_CONN DATABASE_URL",
    },
)


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """
    The settings of the daemon.
    """

    interval_seconds: float = inherited("interval_seconds", default="30s")
    http_bind: tuple[str, int] = inherited("http_bind", default=":9812")
    include_dags: str = setting(
        "INCLUDE_DAGS",
        choice("auto", "true", "false"),
        default="auto",
        text="Whether DAG permissions are synced, or roles only. auto: on Airflow 2, where nothing "
        "else does it; Airflow 3 does it at each parse.",
    )
    roles: str | None = setting(
        "ROLES",
        absolute_path,
        allowed="an absolute path",
        text="A YAML file of roles with their permissions and DAGs, read again each cycle. What it "
        "names is created and granted; nothing is taken away. Unset: none but Airflow's own rules.",
    )
    targeted: bool = setting(
        "TARGETED",
        boolean,
        default="true",
        text="Sync only what differs, by a script that Airflow's Python runs. false: always the "
        "whole `airflow sync-perm`.",
    )
    airflow: str = setting(
        "AIRFLOW",
        str,
        default="airflow",
        allowed="a program on PATH, or its path",
        text="The Airflow command; its first line names the Python that has Airflow.",
    )
    auth_manager: str = setting(
        "AUTH_MANAGER",
        choice("auto", "fab"),
        default="auto",
        text="auto: FAB's auth manager, or a class derived from it, which Airflow's Python imports "
        "at the start. fab: the one that is set is such a class; it is not looked at.",
    )


def load_settings(environ: Mapping[str, str]) -> tuple[Settings, dict[str, str]]:
    """
    Read the settings; return them, and the variables that nobody reads, as :func:`load` does.

    Raises:
        SettingsError: One or more are wrong; all of them are named.
    """
    return load(Settings, PREFIX, environ, instead=INSTEAD)
