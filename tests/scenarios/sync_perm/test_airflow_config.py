"""
Where Airflow's connection is from.
"""

from pathlib import Path

import pytest

from tests import Texts
from tests.scenarios.sync_perm.conftest import SUPPORTED, on_airflow
from tests.support.airflow.databases import PASSWORD, Database
from tests.support.airflow.installed import WITHOUT_KUBERNETES, Airflow
from tests.support.airflow.sync_perm import run_command

CONN = "sql_alchemy_conn"
VARIABLE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
BACKEND = """
from airflow.secrets import BaseSecretsBackend

class Ours(BaseSecretsBackend):
    def get_config(self, key):
        return key
"""
IN_ENVIRONMENT = {"AIRFLOW__SECRETS__BACKEND": "ours.Ours"}


@on_airflow(*SUPPORTED)
@pytest.mark.parametrize(
    ("variables", "file", "setting"),
    [
        (
            {"AIRFLOW__CORE__SQL_ALCHEMY_CONN": "URL"},
            "",
            "AIRFLOW__CORE__SQL_ALCHEMY_CONN",
        ),
        ({}, f"[database]\n{CONN} = URL\n", f"[database] {CONN}"),
        (
            {f"{VARIABLE}_CMD": "echo -n URL"},
            f"[core]\n{CONN} = no\n",
            f"{VARIABLE}_CMD",
        ),
        (
            {f"{VARIABLE}_SECRET": "URL", **IN_ENVIRONMENT},
            f"[database]\n{CONN} = no\n",
            f"{VARIABLE}_SECRET",
        ),
    ],
)
def test_takes_the_url_from_wherever_airflow_does(
    airflow: Airflow,
    database: Database,
    tmp_path: Path,
    variables: Texts,
    file: str,
    setting: str,
) -> None:
    (tmp_path / "ours.py").write_text(BACKEND)
    config = tmp_path / "airflow.cfg"
    config.write_text(file.replace("URL", database.url.replace("%", "%%")))
    settings = {
        name: text.replace("URL", database.url) for name, text in variables.items()
    }

    settings |= {"AIRFLOW_CONFIG": str(config)}
    settings |= {"PYTHONPATH": f"{tmp_path}:{WITHOUT_KUBERNETES}"}

    checked = run_command("check", airflow, None, tmp_path, settings)

    assert 0 == checked.returncode, checked.stdout + checked.stderr
    assert f"{database.name} from {setting}" in checked.stdout
    assert PASSWORD not in checked.stdout + checked.stderr


def test_a_command_that_fails_is_named_and_not_quoted(
    airflow: Airflow, tmp_path: Path
) -> None:

    checked = run_command(
        "check", airflow, None, tmp_path, {f"{VARIABLE}_CMD": f"ls /{PASSWORD}"}
    )

    assert 3 == checked.returncode, checked.stderr
    why = f"connection_command_failed: {VARIABLE}_CMD gave Airflow no URL"
    assert why in checked.stdout
    assert PASSWORD not in checked.stdout + checked.stderr
