"""
Reading Airflow's configuration without Airflow.
"""

from pathlib import Path

import pytest

from sidecar_runtime.errors import SettingsError
from sync_perm.airflow_config import AirflowConfig
from tests.support.raising import raised


def config(home: Path, text: str | None = None, **environ: str) -> AirflowConfig:
    if text is not None:
        (home / "airflow.cfg").write_text(text)
    return AirflowConfig({"AIRFLOW_HOME": str(home), **environ})


def test_a_variable_takes_precedence_over_airflow_cfg(tmp_path: Path) -> None:
    text = "[core]\nauth_manager = of the file\nplugins_folder = /p\n"

    found = config(tmp_path, text, AIRFLOW__CORE__AUTH_MANAGER="of the environment")

    assert "of the environment" == found.value("core", "auth_manager")
    assert "/p" == found.value("core", "plugins_folder")
    assert None is found.value("core", "dags_folder")


def test_reads_the_file_that_airflow_config_names(tmp_path: Path) -> None:
    other = tmp_path / "other.cfg"
    other.write_text("[core]\nauth_manager = other\n")

    found = config(tmp_path, "[core]\nauth_manager = usual\n", AIRFLOW_CONFIG=str(other))

    assert "other" == found.value("core", "auth_manager")


@pytest.mark.parametrize(
    ("written", "read"),
    [("${PLACE}/plugins", "/somewhere/plugins"), ("mysql://u:p%%40@h/d", "mysql://u:p%40@h/d")],
)
def test_expands_variables_and_unescapes_percent_signs_as_airflow_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, read: str
) -> None:
    monkeypatch.setenv("PLACE", "/somewhere")

    found = config(tmp_path, f"[core]\nplugins_folder = {written}\n")

    assert read == found.value("core", "plugins_folder")


@pytest.mark.parametrize(
    "text", ["no section = s3cret\n", "[database]\nsql_alchemy_conn = mysql://u:s3cret%4@h/d\n"]
)
def test_reports_an_invalid_file_without_its_content(tmp_path: Path, text: str) -> None:
    error = raised(
        SettingsError, lambda: config(tmp_path, text).value("database", "sql_alchemy_conn")
    )

    assert "airflow.cfg" in str(error)
    assert "s3cret" not in str(error)


def test_without_a_file_all_options_are_unset(tmp_path: Path) -> None:
    found = config(tmp_path)

    assert (False, None) == (found.has_file, found.value("core", "auth_manager"))


def test_dags_folder_defaults_to_airflow_home_unless_it_is_set(tmp_path: Path) -> None:
    environ = {"AIRFLOW_HOME": str(tmp_path)}
    unset = AirflowConfig(environ).dags_folder

    (tmp_path / "airflow.cfg").write_text("[core]\ndags_folder = /opt/dags\n")

    assert (f"{tmp_path}/dags", "/opt/dags") == (unset, AirflowConfig(environ).dags_folder)
