"""
Reading the environment, and running the commands.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from sidecar_runtime.errors import SettingsError
from sync_perm.command import read_all
from tests.sync_perm.site import Site


def test_problems_of_all_parts_are_reported_together(tmp_path: Path) -> None:
    site = Site(tmp_path, fab="")

    with pytest.raises(SettingsError) as caught:
        read_all(site.environment(INTERVAL="soon", SYNC_PERM_INCLUDE_DAG="false"))

    wrong = {"INTERVAL", "SYNC_PERM_INCLUDE_DAG", "AIRFLOW__CORE__AUTH_MANAGER"}
    wrong |= {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"}
    assert wrong == {problem.setting for problem in caught.value.problems}


def test_diff_exits_with_the_code_of_its_failure(tmp_path: Path) -> None:
    """A refused connection is the quickest failure to provoke."""
    url = "postgresql://u:p@127.0.0.1:1/d"
    environ = Site(tmp_path).environment(AIRFLOW__CORE__SQL_ALCHEMY_CONN=url)

    done = subprocess.run(
        [sys.executable, "-m", "sync_perm", "diff"], env=environ, capture_output=True, text=True
    )

    assert 3 == done.returncode, done.stdout
    assert "refused" in done.stderr
