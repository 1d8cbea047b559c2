"""
Reading the environment, and running the commands.
"""

from pathlib import Path

import pytest

from sidecar_runtime.errors import SettingsError
from sync_perm.command import read_all
from tests.sync_perm.site import Site


def test_problems_of_all_parts_are_reported_together(tmp_path: Path) -> None:

    environ = Site(tmp_path, fab="").environment(
        INTERVAL="soon", SYNC_PERM_INCLUDE_DAG="false"
    )
    with pytest.raises(SettingsError) as caught:
        read_all(environ, str(tmp_path))

    wrong = {"INTERVAL", "SYNC_PERM_INCLUDE_DAG", "AIRFLOW__CORE__AUTH_MANAGER"}
    wrong |= {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"}
    assert wrong == {problem.setting for problem in caught.value.problems}
