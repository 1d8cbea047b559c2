"""
The settings of sync-perm.

What Airflow itself reads (`AIRFLOW_HOME`, `AIRFLOW__…`) keeps Airflow's names: see
:mod:`sync_perm.connection` and :mod:`sync_perm.installation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar_runtime.parsers import bind_address, boolean, choice, duration
from sidecar_runtime.settings import CommonSettings, load, setting

PREFIX = "SYNC_PERM_"

# What people type, and what it is called.
INSTEAD = {
    "SYNC_PERM_INTERVAL": "INTERVAL",
    "SYNC_PERM_PERIOD": "INTERVAL",
    "SYNC_PERM_SLEEP": "INTERVAL",
    "SYNC_PERM_DAGS": "SYNC_PERM_INCLUDE_DAGS",
    "SYNC_PERM_ONCE": "SYNC_PERM_ONE_SHOT",
    "SYNC_PERM_BIND": "SYNC_PERM_HTTP_BIND",
    "SYNC_PERM_LOGLEVEL": "SYNC_PERM_LOG_LEVEL",
    "SYNC_PERM_AIRFLOW_HOME": "AIRFLOW_HOME",
    "SYNC_PERM_SQL_ALCHEMY_CONN": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "SYNC_PERM_DATABASE_URL": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
}


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """
    The settings of the daemon.
    """

    interval_seconds: float = setting(
        "INTERVAL",
        duration(at_least=0.1),
        default="30s",
        prefixed=False,
        text="Time from the start of one cycle to the start of the next.",
    )
    http_bind: tuple[str, int] = setting(
        "HTTP_BIND",
        bind_address,
        default=":9812",
        text="Where /healthz, /readyz, /metrics and the status page listen.",
    )
    include_dags: str = setting(
        "INCLUDE_DAGS",
        choice("auto", "true", "false"),
        default="auto",
        text="Whether DAG permissions are synced, or roles only. auto: on Airflow 2, where nothing "
        "else does it; Airflow 3 does it at each parse.",
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


def load_settings(environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """
    Read the settings; return them and the names of unknown variables.

    Raises:
        SettingsError: One or more are wrong; all of them are named.
    """
    return load(Settings, PREFIX, environ, instead=INSTEAD)
