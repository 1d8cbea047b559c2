"""The gate `airflow`: a real Airflow loads the files before they are released."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import pytest

from s3_sync.publisher.folder import Parcel
from s3_sync.publisher.gate import Airflow, Verdict, judge
from s3_sync.settings import load_settings
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.gate.gate import Finding, RevisionRefused
from tests.scenarios.s3_sync.airflow.dag_folders import (
    LOCAL_SETTINGS,
    broken_files,
    good_beside,
    head_for,
    one_dag,
)
from tests.support.airflow.installed import WITHOUT_KUBERNETES, Version
from tests.support.airflow.installed import Airflow as InstalledAirflow
from tests.support.aws.servers import MotoServer
from tests.support.raising import raised
from tests.support.s3_sync.publishing import Publishing, write_files
from tests.support.s3_sync.releases import make_release

# Airflow 2 and 3.
TIMEOUTS = tuple(
    f"AIRFLOW__{section}__DAG_FILE_PROCESSOR_TIMEOUT"
    for section in ("CORE", "DAG_PROCESSOR")
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """
    Use one Airflow, all with `--full`. The first test installs it, which takes minutes.
    """
    if "airflow" in metafunc.fixturenames:
        is_full = metafunc.config.getoption("--full")
        versions = get_args(Version) if is_full else ("2.11",)
        params = [
            pytest.param(one, marks=pytest.mark.timeout(1_800)) for one in versions
        ]
        metafunc.parametrize("airflow", params, indirect=True, scope="session")


@pytest.fixture(scope="session")
def airflow(request: pytest.FixtureRequest) -> InstalledAirflow:
    """A real Airflow."""
    return InstalledAirflow.install_or_skip(request.param)


class Gate:
    """The gate, run in this process with a real Airflow."""

    def __init__(self, airflow: InstalledAirflow, home: Path) -> None:
        self.airflow = airflow
        self.home = home
        self.head = head_for(airflow.version)
        given = {
            "AWS_BUCKET": "bucket",
            "DEST_PATH": "/nowhere",
            "S3_SYNC_GATE_TIMEOUT": "20m",
        }
        given |= {"S3_SYNC_GATE_ENV": ",".join(TIMEOUTS)}
        self._settings = load_settings(given, may_be_idle=True)[0]

    def load(self, files: Mapping[str, bytes], *allowed: str) -> Verdict:
        """
        Load a folder with these files.

        Raises:
            RevisionRefused: A file is broken.
        """
        release = make_release(files)
        self.home.mkdir(exist_ok=True)
        path = self.home.with_name("bundle.zip")
        path.write_bytes(release.bundle_bytes)
        patterns = [re.compile(one) for one in allowed]
        meant = Airflow(str(self.airflow.bin / "python"), str(self.home), patterns)
        parcel = Parcel(release.manifest, release.manifest_bytes, str(path))
        return judge(self._settings, meant, parcel)

    def refusals(self, files: Mapping[str, bytes]) -> Sequence[Finding]:
        return raised(RevisionRefused, self.load, files).findings


@pytest.fixture
def gate(
    airflow: InstalledAirflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Gate:
    monkeypatch.setenv("PYTHONPATH", str(WITHOUT_KUBERNETES))
    return Gate(airflow, tmp_path / "airflow")


def test_refuses_and_reports_each_broken_file_and_no_other(gate: Gate) -> None:
    write_files(gate.home / "config", {"airflow_local_settings.py": LOCAL_SETTINGS})
    expected = broken_files(gate.head)
    files = good_beside(gate.head) | {
        path: broken.body for path, broken in expected.items()
    }

    found = {refusal.path: refusal for refusal in gate.refusals(files)}

    assert expected.keys() == found.keys()
    for path, broken in expected.items():
        assert broken.says in found[path].problem
        assert broken.line == found[path].line


def test_refuses_a_file_that_hangs_beyond_airflows_own_timeout(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in TIMEOUTS:
        monkeypatch.setenv(name, "5")
    hangs = b"import signal, time  # airflow DAG\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\n"

    [refusal] = gate.refusals(
        {"hangs.py": hangs + b"time.sleep(600)\n", "notes.txt": b""}
    )

    text = "loading it takes longer than dag_file_processor_timeout, 5 s"
    assert Finding("hangs.py", None, text) == refusal


def test_no_verdict_if_airflow_fails(gate: Gate) -> None:
    files = {"sales.py": one_dag(gate.head, "sales"), "a/.airflowignore": b"good\n"}

    error = raised(
        SidecarError, gate.load, {**files, ".airflowignore": "café".encode("latin-1")}
    )

    assert ("gate_undecided", True) == (
        error.reason,
        "UnicodeDecodeError" in error.message,
    )


def test_accepts_errors_that_match_a_pattern(gate: Gate) -> None:
    files = {
        "load.py": b"from airflow import DAG\nimport snowflake.connector\n",
        "sales.py": one_dag(gate.head, "sales"),
    }

    assert ["load.py"] == [one.path for one in gate.refusals(files)]
    verdict = gate.load(files, r"No module named '(pandas|snowflake)\b")
    assert verdict.text.endswith(": 1 DAG; allowed: load.py")


def test_dag_files_see_only_listed_variables(
    airflow: InstalledAirflow, moto: MotoServer, tmp_path: Path
) -> None:
    """
    Runs the command itself, with a DAG file that records its environment; the user's
    AIRFLOW_HOME stays untouched. A missing package is refused unless it is allowed.
    """
    seen = tmp_path / "seen"
    spy = f"import os\nopen({str(seen)!r}, 'w').write('\\n'.join(sorted(os.environ)))\n".encode()
    home = write_files(
        tmp_path / "home/airflow", {"airflow.cfg": b"[core]\nexecutor = Nonsense\n"}
    )
    publisher = Publishing(
        moto,
        moto.new_bucket("airflow"),
        tmp_path / "home",
        {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW_VAR_SALES_RATE": "7",
            "AIRFLOW_VAR_SECRET": "7",
            "S3_SYNC_GATE_ENV": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN,AIRFLOW_VAR_SALES_RATE",
        },
    )
    reads = b"from airflow.models import Variable\nVariable.get('sales_rate')\n"
    folder = write_files(
        tmp_path / "dags",
        {"sales.py": one_dag(head_for(airflow.version), "sales") + spy + reads},
    )
    arguments = ("--gate", "airflow", "--airflow-python", airflow.bin / "python")

    facts = publisher.succeed("publish", folder, *arguments)

    names = {
        name
        for name in seen.read_text().split()
        if not name.startswith("AIRFLOW__CORE__")
    }
    own = {
        "AIRFLOW_HOME",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED",
        "_AIRFLOW_PROCESS_CONTEXT",
    }
    given = {
        "PATH",
        "HOME",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "AIRFLOW_VAR_SALES_RATE",
    }
    gate = {
        "GATE_FOLDER",
        "GATE_REVISION",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONSAFEPATH",
    }
    assert own | given | gate <= names
    assert not {"AIRFLOW_VAR_SECRET", "AIRFLOW_VAR_OTHER"} & names
    assert [] == [name for name in names if name.startswith(("AWS_", "S3_SYNC_"))]
    assert ["airflow.cfg"] == os.listdir(home)
    assert "airflow" == facts["gate"]
    assert [] == list((tmp_path / "home").glob("s3-sync-*"))

    write_files(folder, {"no.py": b"from airflow import DAG\nimport snowflake\n"})
    refused = publisher.run("publish", folder, *arguments, "--output", "json")
    assert 2 == refused.code
    [problem] = refused.facts()["problems"]
    assert ("revision_refused", "no.py", 2) == (
        refused.facts()["reason"],
        problem["path"],
        problem["line"],
    )
    assert "    no.py:2: Traceback" in refused.err and "--gate-allow" in refused.err
    assert facts["revision"] == publisher.succeed("releases")["current"]
    allowed = publisher.run(
        "publish", folder, *arguments, "--gate-allow", "named 'snowflake'"
    )
    assert 0 == allowed.code, allowed
    assert "0 DAGs; allowed: no.py" in allowed.out
