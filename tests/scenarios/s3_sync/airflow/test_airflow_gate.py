"""The gate `airflow`: a real Airflow loads the files before they are released."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.airflow.dag_folders import (
    LOCAL_SETTINGS,
    broken_files,
    good_beside,
    head_for,
    one_dag,
)
from tests.support.airflow.installed import WITHOUT_KUBERNETES, Airflow
from tests.support.aws.servers import MotoServer
from tests.support.s3_sync.publishing import Publishing, Ran, write_files

# Airflow 2 and 3.
TIMEOUTS = (
    "AIRFLOW__CORE__DAG_FILE_PROCESSOR_TIMEOUT",
    "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT",
)
DATABASE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


pytestmark = pytest.mark.timeout(1_800)


class Gate(Publishing):
    """A publisher whose gate is a real Airflow."""

    def __init__(self, airflow: Airflow, server: MotoServer, folder: Path) -> None:
        self.home = folder / "home/airflow"
        self.head = head_for(airflow.version)
        self._python = str(airflow.bin / "python")
        settings = {
            "AIRFLOW_HOME": str(self.home),
            "PYTHONPATH": str(WITHOUT_KUBERNETES),
            "S3_SYNC_GATE_ENV": ",".join((*TIMEOUTS, DATABASE, "AIRFLOW_VAR_RATE")),
            "S3_SYNC_GATE_TIMEOUT": "20m",
        }
        super().__init__(
            server, server.new_bucket("airflow"), folder / "home", settings
        )

    def publish(self, files: Mapping[str, bytes], *more: str) -> Ran:
        """Publish these files."""
        words = ("--gate", "airflow", "--airflow-python", self._python, *more)
        return self.run("publish", write_files(self.dags, files), *words)

    def refuses(self, files: Mapping[str, bytes]) -> dict[str, tuple[int | None, str]]:
        """Fail to publish these files; return line and problem by path."""
        ran = self.publish(files, "--output", "json")
        facts = ran.facts()
        assert (2, "revision_refused") == (ran.code, facts["reason"]), ran
        assert "--gate-allow" in facts["advice"]
        return {one["path"]: (one["line"], one["problem"]) for one in facts["problems"]}


@pytest.fixture
def gate(airflow: Airflow, moto: MotoServer, tmp_path: Path) -> Gate:
    return Gate(airflow, moto, tmp_path)


def test_refuses_and_reports_each_broken_file_and_no_other(gate: Gate) -> None:
    write_files(gate.home / "config", {"airflow_local_settings.py": LOCAL_SETTINGS})
    expected = broken_files(gate.head)

    found = gate.refuses(
        good_beside(gate.head)
        | {path: broken.body for path, broken in expected.items()}
    )

    assert expected.keys() == found.keys()
    for path, broken in expected.items():
        line, problem = found[path]
        assert broken.line == line and broken.says in problem


def test_refuses_a_file_that_hangs_beyond_airflows_own_timeout(gate: Gate) -> None:
    gate.environment |= dict.fromkeys(TIMEOUTS, "5")
    hangs = b"import signal, time  # airflow DAG\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\n"

    found = gate.refuses({"hangs.py": hangs + b"time.sleep(600)\n", "notes.txt": b""})

    assert {
        "hangs.py": (
            None,
            "loading it takes longer than dag_file_processor_timeout, 5 s",
        )
    } == found


def test_no_verdict_if_airflow_fails_or_a_signal_ends_a_process(gate: Gate) -> None:
    sales = {"sales.py": one_dag(gate.head, "sales")}
    killed = b"import os  # airflow DAG\nos.kill(os.getpid(), 9)\n"
    for files, said in (
        ({".airflowignore": "café".encode("latin-1")}, "UnicodeDecodeError"),
        ({"killed.py": killed}, "killed.py failed: SIGKILL"),
    ):
        ran = gate.publish(sales | files | {"a/.airflowignore": b"good\n"})

        assert 3 == ran.code, ran
        assert "no verdict" in ran.err and said in ran.err, ran


def test_accepts_errors_that_match_a_pattern(gate: Gate) -> None:
    files = {
        "load.py": b"from airflow import DAG\nimport snowflake.connector\n",
        "sales.py": one_dag(gate.head, "sales"),
    }

    assert ["load.py"] == list(gate.refuses(files))
    ran = gate.publish(files, "--gate-allow", r"No module named '(pandas|snowflake)\b")
    assert 0 == ran.code, ran
    assert ": 1 DAG; allowed: load.py" in ran.out


def test_dag_files_see_only_listed_variables(gate: Gate, tmp_path: Path) -> None:
    """The user's AIRFLOW_HOME and database stay untouched."""
    seen = tmp_path / "seen"
    spies = (
        f"import os\nopen({str(seen)!r}, 'w').write('\\n'.join(os.environ))\n"
        "from airflow.models import Variable\nVariable.get('rate')\n"
    )
    write_files(gate.home, {"airflow.cfg": b"[core]\nexecutor = Nonsense\n"})
    gate.environment |= {
        DATABASE: f"sqlite:///{gate.home}/airflow.db",
        "AIRFLOW_VAR_RATE": "7",
        "AIRFLOW_VAR_SECRET": "7",
    }

    ran = gate.publish({"sales.py": one_dag(gate.head, "sales") + spies.encode()})

    assert 0 == ran.code, ran
    names = set(seen.read_text().split())
    assert {"PATH", "HOME", "AIRFLOW_VAR_RATE", "GATE_FOLDER"} <= names
    assert "AIRFLOW_VAR_SECRET" not in names
    assert [] == [name for name in names if name.startswith(("AWS_", "S3_SYNC_"))]
    assert ["airflow.cfg"] == os.listdir(gate.home)
    assert [] == list((tmp_path / "home").glob("s3-sync-*"))
