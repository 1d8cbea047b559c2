"""
The settings of the wrapper itself.
"""

import pytest

from git_sync_wrapper.settings import PREFIX, Settings, load_settings
from sidecar_runtime.errors import SettingsError
from sidecar_runtime.settings import names_of
from tests.support.raising import raised


def test_the_defaults_retain_for_ten_minutes_without_a_gate() -> None:
    settings, unknown = load_settings({})

    assert ("git-sync", "off", 600.0) == (
        settings.git_sync,
        settings.gate,
        settings.retain_seconds,
    )
    assert [] == unknown


def test_ignores_the_interval_variable() -> None:
    settings, _ = load_settings({"INTERVAL": "77"})

    assert 10.0 == settings.interval_seconds
    assert "INTERVAL" not in names_of(Settings, PREFIX)


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        (
            {"GIT_SYNC_WRAPPER_RETAIN": "x"},
            "is not a setting; did you mean GIT_SYNC_WRAPPER_RETAIN_FOR?",
        ),
        (
            {"GIT_SYNC_WRAPPER_CREDENTIALS": "secrets-manager:x"},
            "is not one of auto, codecommit",
        ),
    ],
)
def test_reports_each_wrong_setting_with_its_problem(environ: dict[str, str], problem: str) -> None:
    error = raised(SettingsError, load_settings, environ)

    assert [(next(iter(environ)), problem)] == [(p.setting, p.problem) for p in error.problems]
