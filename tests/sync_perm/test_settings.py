"""
The settings of sync-perm.
"""

import pytest

from sidecar_runtime.errors import SettingsError
from sync_perm.settings import load_settings


def test_no_setting_is_required() -> None:
    settings, unknown = load_settings({})

    assert ("auto", True) == (settings.include_dags, settings.targeted)
    assert ("airflow", ("", 9812)) == (settings.airflow, settings.http_bind)
    assert [] == unknown


def test_refuses_a_value_that_is_not_a_choice() -> None:
    with pytest.raises(SettingsError, match=r"SYNC_PERM_INCLUDE_DAGS='maybe' is not one of auto"):
        load_settings({"SYNC_PERM_INCLUDE_DAGS": "maybe"})
