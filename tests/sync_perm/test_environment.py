"""
The environment and the folders of Airflow's process.
"""

import tempfile
from pathlib import Path

import pytest

from sidecar_runtime.errors import SettingsError
from sync_perm.airflow_config import AirflowConfig
from sync_perm.connection import parse_url
from sync_perm.passes import Passes, own_folder
from tests.sync_perm.given import AIRFLOW_2

ADDRESS = parse_url("TEST", "postgresql://u:p@h/d", "")


def around(home: Path, folder: Path, **environ: str) -> dict[str, str]:
    config = AirflowConfig({"AIRFLOW_HOME": str(home), "HOME": "/home/someone", **environ})
    return dict(Passes(AIRFLOW_2, config, str(folder))._environment(ADDRESS))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_airflow_gets_its_own_folder_and_no_missing_path(home: Path, tmp_path: Path) -> None:
    found = around(home, tmp_path)

    for name in ("HOME", "TMPDIR", "AIRFLOW_HOME", "AIRFLOW__LOGGING__BASE_LOG_FOLDER"):
        assert found[name].startswith(str(tmp_path))
        assert not found[name].startswith(str(home))
    assert set() == found.keys() & {"AIRFLOW_CONFIG", "AIRFLOW__WEBSERVER__CONFIG_FILE"}
    assert (tmp_path / "logs").is_dir()


def test_uses_the_existing_configuration_files(home: Path, tmp_path: Path) -> None:
    (home / "airflow.cfg").write_text("[core]\nplugins_folder = /elsewhere\n")
    (home / "webserver_config.py").touch()
    (home / "plugins").mkdir()

    found = around(home, tmp_path, AIRFLOW__FAB__CONFIG_FILE="/mine.py")

    assert str(home / "airflow.cfg") == found["AIRFLOW_CONFIG"]
    assert str(home / "webserver_config.py") == found["AIRFLOW__WEBSERVER__CONFIG_FILE"]
    assert "/mine.py" == found["AIRFLOW__FAB__CONFIG_FILE"]
    assert "AIRFLOW__CORE__PLUGINS_FOLDER" not in found  # airflow.cfg sets it


def test_modules_beside_the_configuration_can_be_imported(home: Path, tmp_path: Path) -> None:
    for name in ("config", "dags"):
        (home / name).mkdir()
    (home / "config" / "log_config.py").touch()

    for _ in range(2):  # once per pass
        found = around(home, tmp_path)

    assert (Path(found["AIRFLOW_HOME"]) / "config" / "log_config.py").exists()
    assert str(home / "dags") == found["AIRFLOW__CORE__DAGS_FOLDER"]


def test_finds_the_users_packages_although_home_differs(home: Path, tmp_path: Path) -> None:
    assert "/home/someone/.local" == around(home, tmp_path)["PYTHONUSERBASE"]
    assert "/set" == around(home, tmp_path, PYTHONUSERBASE="/set")["PYTHONUSERBASE"]


def test_omits_own_settings_and_normalizes_the_database_url(home: Path, tmp_path: Path) -> None:
    given = {"SYNC_PERM_LOG_LEVEL": "debug", "PLUGIN_SETTING": "kept"}
    found = around(home, tmp_path, AIRFLOW__CORE__SQL_ALCHEMY_CONN="postgres://u:p@h/d", **given)

    assert ("kept", None) == (found["PLUGIN_SETTING"], found.get("SYNC_PERM_LOG_LEVEL"))
    assert "postgresql://u:p@h/d" == found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]


def test_requires_a_writable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))

    with pytest.raises(SettingsError, match="mount an emptyDir at /tmp"), own_folder():
        pass


def test_removes_its_own_folder_and_those_of_killed_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "sync-perm-killed").mkdir()
    (tmp_path / "sync-perm-killed" / ".lock").touch()
    (tmp_path / "sync-permanent").mkdir()

    with own_folder() as one, own_folder() as another:
        there = {str(path) for path in tmp_path.iterdir()}

    assert {one, another, str(tmp_path / "sync-permanent")} == there
    assert [tmp_path / "sync-permanent"] == list(tmp_path.iterdir())
