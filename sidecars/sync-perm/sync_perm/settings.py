"""
The settings of sync-perm.

Airflow's own variables (`AIRFLOW_HOME`, `AIRFLOW__…`) keep their names: see
:mod:`sync_perm.airflow_config` and :mod:`sync_perm.airflow`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar_runtime.parsers import absolute_path, choice
from sidecar_runtime.settings import CommonSettings, inherited, load, setting

PREFIX = "SYNC_PERM_"

# What earlier versions had; see `load`.
GONE = {
    "AIRFLOW": "no longer exists: `airflow` is found on PATH; remove it, and put the "
    "folder of that program first in PATH",
    "AUTH_MANAGER": "no longer exists: Airflow is asked for its auth manager; remove it",
    "DRY_RUN": "no longer exists, and sync-perm writes: remove it to let it write; "
    "`sync-perm diff` prints what it would write",
    "TARGETED": "no longer exists: whether the whole command runs depends on Airflow's "
    "version; remove it",
}


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
        text="Whether to sync DAG permissions as well as roles. auto: unless Airflow does so at "
        "each parse: see `sync-perm check`.",
    )
    roles: str | None = setting(
        "ROLES",
        absolute_path,
        text="A YAML file of roles with their permissions and DAGs, read each cycle. The sidecar "
        "creates and grants what it lists, and removes nothing. Unset: only Airflow's own rules.",
    )


def load_settings(environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """
    Return the settings and the unknown variables, as :func:`load` does.

    Raises:
        SettingsError: Settings are wrong; it lists all of them.
    """
    return load(Settings, PREFIX, environ, gone=GONE)
