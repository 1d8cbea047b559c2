"""The input, output and verdicts of the gate of `publish`, with a real server."""

from pathlib import Path

import pytest

from tests.scenarios.s3_sync.publish.place import BROKEN, A, Place
from tests.support.s3_sync.publishing import (
    Publishing,
    write_files,
)
from tests.support.scripts import script


def test_reports_every_broken_file_and_uploads_nothing(on_moto: Place) -> None:
    on_moto.publish(A)
    before = on_moto.bodies()

    ran = on_moto.publisher.run("publish", write_files(on_moto.dags, BROKEN), "--gate", "syntax")

    assert (2, "") == (ran.code, ran.out)
    assert "a.py:1: '(' was never closed" in ran.err and "b.py:1:" in ran.err
    assert before == on_moto.bodies()


def test_gate_command_sees_only_the_files_that_would_be_released(
    on_moto: Place, tmp_path: Path
) -> None:
    write_files(on_moto.dags, {**A, ".git/config": b"", "b.pyc": b""})
    (on_moto.dags / "link.py").symlink_to("a.py")
    seen = tmp_path / "seen"
    gate = script(tmp_path / "gate", "find . -type f | sort > $SEEN")
    publisher = on_moto.publisher_with(
        S3_SYNC_GATE="command",
        S3_SYNC_GATE_COMMAND=gate,
        S3_SYNC_GATE_ENV="SEEN",
        SEEN=str(seen),
    )

    facts = publisher.succeed("publish", on_moto.dags)

    assert "command" == facts["gate"]
    assert [f"./{name}" for name in sorted([*A, "link.py"])] == seen.read_text().splitlines()
    assert [] == list(on_moto.home.glob("s3-sync-*"))


# A fake Airflow: each file has a DAG of its name, `no.py` is broken, `kill.py` crashes it.
AIRFLOW = b"""#!/usr/bin/python3
import json, os, pathlib, signal, sys
_, _, home = sys.argv
dags, found = [], []
for path in sorted(pathlib.Path(os.environ["GATE_FOLDER"]).glob("*.py")):
    if path.name == "kill.py":
        os.kill(os.getpid(), signal.SIGKILL)
    if path.name == "no.py":
        found.append(["no.py", None, "No module named 'pandas'"])
    else:
        dags.append(path.stem)
answer = {"airflow": "3.3.2", "dags": dags, "trouble": "", "findings": found}
pathlib.Path(home, "answer").write_text(json.dumps(answer))
"""


@pytest.fixture
def airflow(on_moto: Place, tmp_path: Path) -> Publishing:
    """A publisher with the Python of the fake Airflow on its PATH."""
    (write_files(tmp_path / "bin", {"python": AIRFLOW}) / "python").chmod(0o755)
    return on_moto.publisher_with(PATH=f"{tmp_path}/bin:/usr/bin:/bin")


def test_prints_and_stores_the_dags_that_airflow_found(on_moto: Place, airflow: Publishing) -> None:
    gate = ("--gate", "airflow")
    first = airflow.succeed("publish", write_files(on_moto.dags, {"a.py": b"", "b.py": b""}), *gate)
    second = airflow.run("publish", write_files(on_moto.dags, {"b.py": b"", "c.py": b""}), *gate)

    assert ("airflow", ["a", "b"]) == (first["gate"], first["dag_ids"])
    assert second.code == 0, second
    said = second.out.splitlines()[0].removeprefix("Checked with ")
    assert said.startswith("Airflow 3.3.2 at ") and said.endswith(": 2 DAGs")
    newest, _ = airflow.succeed("releases")["releases"]
    assert said == newest["origin"]["checked_by"]
    prd = f"s3://{on_moto.bucket}/prd"
    promoted = airflow.succeed("promote", airflow.url, prd, *gate)
    assert ("promoted", ["b", "c"]) == (promoted["result"], promoted["dag_ids"])


def test_airflow_gate_refuses_a_missing_package_unless_it_is_allowed(
    on_moto: Place, airflow: Publishing
) -> None:
    write_files(on_moto.dags, {"no.py": b"", "a.py": b""})
    publish = ("publish", on_moto.dags, "--gate", "airflow")

    refused = airflow.run(*publish, "--output", "json")
    assert 2 == refused.code
    said = "no.py: No module named 'pandas'"
    [problem] = refused.facts()["problems"]
    assert ("revision_refused", "no.py") == (refused.facts()["reason"], problem["path"])
    assert f"    {said}\n" in refused.err and "--gate-allow" in refused.err
    assert {} == on_moto.bodies()
    other = airflow.run(*publish, "--gate-allow", "named 'numpy")
    assert 2 == other.code

    allowed = airflow.run(*publish, "--gate-allow", r"No module named '(pandas|numpy)\b")
    assert allowed.code == 0, allowed
    assert f"  allowed: {said}" in allowed.out
    assert "1 DAG, 1 file not loaded" in allowed.out
