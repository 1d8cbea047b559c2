"""
The reader detects broken DAG folders.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster import reader
from tests.cluster.stack import revision
from tests.support.s3_sync.publishing import write_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "airflow.cfg").write_text(f"[core]\ndags_folder = {tmp_path}/dags\n")
    return write_files(tmp_path / "dags", revision(7))


def seen(folder: Path) -> dict[str, int | str]:
    program = [sys.executable, reader.__file__, "read"]
    environment = {"AIRFLOW_HOME": str(folder.parent)}
    found: dict[str, int | str] = json.loads(subprocess.check_output(program, env=environment))
    return found


def test_reports_the_number_of_a_complete_revision(folder: Path) -> None:
    assert {"revision": 7} == seen(folder)


FAULTS: dict[str, Callable[[Path], object]] = {
    "half a file": lambda one: one.write_bytes(one.read_bytes()[:-9]),
    "an empty file": lambda one: one.write_bytes(b""),
    "a file of another revision": lambda one: one.write_bytes(revision(8)["team0/dag0.py"]),
    "another file": lambda one: one.write_bytes(revision(7)["team1/dag1.py"]),
    "a file too few": lambda one: one.unlink(),
    "no folder": lambda one: one.parents[1].rename(one.parents[2] / "elsewhere"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_reports_a_broken_folder_as_a_flaw(folder: Path, fault: Callable[[Path], object]) -> None:
    fault(folder / "team0/dag0.py")

    assert ["flaw"] == list(seen(folder))
