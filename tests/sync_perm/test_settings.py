"""
The settings of sync-perm.
"""

import pytest

from sidecar_runtime.errors import SettingsError
from sidecar_runtime.settings import names_of
from sync_perm.settings import INSTEAD, PREFIX, Settings, load_settings
from tests.support.raising import raised


def test_no_setting_is_required() -> None:
    settings, unknown = load_settings({})

    assert ("auto", True) == (settings.include_dags, settings.targeted)
    assert ("airflow", ("", 9812)) == (settings.airflow, settings.http_bind)
    assert {} == unknown


def test_suggests_the_right_name_for_a_common_wrong_name() -> None:
    for wrong, right in INSTEAD.items():
        error = raised(SettingsError, load_settings, {wrong: "1"})

        assert [(wrong, f"is not a setting; the right name is {right}")] == [
            (problem.setting, problem.problem) for problem in error.problems
        ]


def test_every_suggested_name_is_a_setting_or_airflows_own() -> None:
    ours = names_of(Settings, PREFIX)

    assert [] == [n for n in INSTEAD.values() if n not in ours and not n.startswith("AIRFLOW_")]


def test_refuses_a_value_that_is_not_a_choice() -> None:
    with pytest.raises(SettingsError, match=r"SYNC_PERM_INCLUDE_DAGS='maybe' is not one of auto"):
        load_settings({"SYNC_PERM_INCLUDE_DAGS": "maybe"})
