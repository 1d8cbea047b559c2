"""
What the environment says.
"""

from pathlib import Path

import pytest

from sidecar_runtime.errors import SettingsError
from sync_perm.command import read_all
from tests.sync_perm.site import Site


def test_problems_of_all_parts_are_reported_together(tmp_path: Path) -> None:
    site = Site(tmp_path, fab="")

    with pytest.raises(SettingsError) as caught:
        read_all(site.environment(INTERVAL="soon", SYNC_PERM_TARGETTED="false"))

    assert {
        "INTERVAL",
        "SYNC_PERM_TARGETTED",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "AIRFLOW__CORE__AUTH_MANAGER",
    } == {problem.setting for problem in caught.value.problems}


def test_what_is_right_comes_whole(tmp_path: Path) -> None:
    url = "postgresql://u:p@h/d"
    strange = {"SYNC_PERM_WHATEVER_ELSE": "1"}

    found = read_all(
        Site(tmp_path).environment(AIRFLOW__CORE__SQL_ALCHEMY_CONN=url, INTERVAL="7", **strange)
    )

    assert 7 == found.settings.interval_seconds
    assert list(strange) == found.unknown
    assert ("postgresql://h/d", "2.11.2") == (found.where, found.airflow.version)
