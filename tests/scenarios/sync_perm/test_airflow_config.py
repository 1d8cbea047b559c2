"""
Where Airflow's connection is from, and our reading of its other options beside its own.
"""

import json
import subprocess
from itertools import product
from pathlib import Path

import pytest

from sync_perm.config import AirflowConfig
from tests.scenarios.sync_perm.conftest import SUPPORTED, on_airflow
from tests.support.airflow.databases import PASSWORD, Database
from tests.support.airflow.installed import WITHOUT_KUBERNETES, Airflow
from tests.support.airflow.sync_perm import run_command

ASK = Path(__file__).with_name("ask_airflow.py")
CONN = "sql_alchemy_conn"
VARIABLE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
BACKEND = """
from airflow.secrets import BaseSecretsBackend

class Ours(BaseSecretsBackend):
    def get_config(self, key):
        return key
"""
IN_ENVIRONMENT = {"AIRFLOW__SECRETS__BACKEND": "ours.Ours"}
# What airflow.cfg and the variable say of an option; None: nothing.
TEXTS = (None, "", "x.y", "$HOME/x", "~/x", "a%b", "${NO_SUCH}")


@on_airflow(*SUPPORTED)
@pytest.mark.parametrize("key", ["auth_manager", "plugins_folder"])
def test_each_other_option_is_airflows(
    airflow: Airflow, tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    common = airflow.environment(None, tmp_path)
    common.pop("AIRFLOW__CORE__AUTH_MANAGER", "")  # a case may set it
    file, variable = tmp_path / "ours.cfg", f"AIRFLOW__CORE__{key.upper()}"
    cases, found = [], []
    for text, said in product(TEXTS, TEXTS):
        lines = "" if text is None else f"[core]\n{key} = {text.replace('%', '%%')}\n"
        given = {} if said is None else {variable: said}
        file.write_text(lines)
        found.append(
            AirflowConfig({"AIRFLOW_CONFIG": str(file), **given}).value("core", key)
        )
        environ = {**common, **given}
        cases.append({"environ": environ, "file": lines, "options": [("core", key)]})
    (tmp_path / "airflow").mkdir()

    done = subprocess.run(
        [airflow.bin / "python", ASK],
        env=common,
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    # Ours is empty where Airflow's own default holds.
    wrong = [
        (case, ours, answer)
        for case, ours, answer in zip(cases, found, answers, strict=True)
        if answer != [ours] and (answer != answers[0] or ours)
    ]
    assert [] == wrong


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
        ({}, f"[core]\n{CONN} = URL\n", f"[core] {CONN}"),
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
    variables: dict[str, str],
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


def test_an_empty_airflow_config_names_no_file(
    airflow: Airflow, tmp_path: Path
) -> None:
    """Airflow takes its default, SQLite, although AIRFLOW_HOME has a file."""
    (tmp_path / "airflow").mkdir()
    (tmp_path / "airflow/airflow.cfg").write_text(f"[database]\n{CONN} = mysql://h/d\n")
    settings = {"AIRFLOW_CONFIG": "", "AIRFLOW_HOME": str(tmp_path / "airflow")}

    checked = run_command("check", airflow, None, tmp_path, settings)

    assert 2 == checked.returncode, checked.stdout
    assert "is missing: set it to the URL" in checked.stdout


def test_a_command_that_fails_is_named_and_not_quoted(
    airflow: Airflow, tmp_path: Path
) -> None:
    settings = {f"{VARIABLE}_CMD": f"ls /{PASSWORD}"}

    checked = run_command("check", airflow, None, tmp_path, settings)

    assert 3 == checked.returncode, checked.stderr
    why = f"connection_command_failed: {VARIABLE}_CMD gave Airflow no URL"
    assert why in checked.stdout
    assert PASSWORD not in checked.stdout + checked.stderr
