"""Airflow's walk over its DAG folder finds each DAG once, and no file of s3-sync."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.airflow.installed import Airflow
from tests.support.s3_sync.scripted import daemon_for
from tests.support.s3_sync.snapshots import SwappingS3

DAG = b"from airflow import DAG\nwith DAG('%s'):\n    pass\n"
DAGS = {
    f"{name}.py": DAG % name.encode()
    for name in (
        "sales",
        "pkg/orders",
        "pkg/deep/down/stock",
        # names that s3-sync uses in its own folder
        "tree/forest",
        "snapshots/photo",
        "staging/stage",
        "staged/play",
        "current/events",
        ".hidden/secret",
    )
}
OTHERS = {
    ".airflowignore": b"skipped  # both syntaxes read this alike\n",
    "skipped/dag.py": DAG % b"skipped",
    "pkg/skipped/deep/dag.py": DAG % b"skipped",
    "lib.py": b"VALUE = 1\n",
    "README.md": b"dag airflow\n",
}
WALK = """
import json, sys
from airflow.utils.file import list_py_file_paths
print(json.dumps([sorted(list_py_file_paths(one, safe_mode=True)) for one in sys.argv[1:]]))
"""


FILES = DAGS | OTHERS


@pytest.fixture(scope="module", params=["in-place", "snapshot"])
def volume(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """A target after two revisions: in the snapshot layout, both are there."""
    target = tmp_path_factory.mktemp("volume") / "dags"
    with SwappingS3() as s3:
        s3.swap(FILES | {"old.py": DAG % b"old"})
        with daemon_for(
            s3, target, settings={"S3_SYNC_LAYOUT": request.param}
        ) as daemon:
            daemon.wait_until_synced()
            s3.swap(FILES)
            daemon.sync()
    return target


def walk(airflow: Airflow, syntax: str, home: Path, *folders: Path) -> Any:
    """Return the files that the walk finds in each folder."""
    said = subprocess.run(
        [airflow.bin / "python", "-c", WALK, *folders],
        env=airflow.environment(None, home)
        | {"AIRFLOW__CORE__DAG_IGNORE_FILE_SYNTAX": syntax},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(said.stdout.splitlines()[-1])


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("airflow", ["2.11", "3.2", "3"], indirect=True)
@pytest.mark.parametrize("syntax", ["regexp", "glob"])
def test_airflow_finds_each_dag_exactly_once(
    airflow: Airflow, volume: Path, syntax: str, tmp_path: Path
) -> None:
    """
    Users may set the DAG folder or the target itself. For `.airflowignore` Airflow 2
    uses the first syntax by default, Airflow 3 the second.
    """
    folder = volume / "current" if (volume / "current").is_symlink() else volume

    found = walk(airflow, syntax, tmp_path, folder, volume)

    assert [sorted(str(folder / path) for path in DAGS)] * 2 == found
