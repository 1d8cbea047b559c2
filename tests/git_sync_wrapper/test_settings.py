"""
The settings of the wrapper itself.
"""

from pathlib import Path

import pytest

from git_sync_wrapper.settings import PREFIX, Settings, load_settings
from sidecar_runtime.errors import SettingsError
from sidecar_runtime.settings import names_of
from tests.support.raising import raised
from tests.support.scripts import script

GIT_SYNC = {"GIT_SYNC_WRAPPER_GIT_SYNC": "/bin/true"}


def test_the_default_mode_is_protect_without_a_gate() -> None:
    settings, unknown = load_settings(GIT_SYNC)

    assert ("protect", "off") == (settings.mode, settings.gate)
    assert ("/bin/true", 600.0) == (settings.git_sync, settings.retain_seconds)
    assert [] == unknown


def test_ignores_the_interval_variable() -> None:
    settings, _ = load_settings(GIT_SYNC | {"INTERVAL": "77"})

    assert 10.0 == settings.interval_seconds
    assert "INTERVAL" not in names_of(Settings, PREFIX)


def test_finds_git_sync_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = script(tmp_path / "git-sync", "")
    monkeypatch.setenv("PATH", str(tmp_path))

    settings, _ = load_settings({})

    assert program == settings.git_sync


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        (
            {"GIT_SYNC_WRAPPER_RETAIN": "x"},
            "is not a setting; did you mean GIT_SYNC_WRAPPER_RETAIN_FOR?",
        ),
        ({"GIT_SYNC_WRAPPER_GIT_SYNC": "/missing"}, "is not an executable program in this image"),
        (
            {"GIT_SYNC_WRAPPER_GATE": "syntax", "GIT_SYNC_WRAPPER_MODE": "passthrough"},
            "needs GIT_SYNC_WRAPPER_MODE=protect",
        ),
    ],
)
def test_reports_each_wrong_setting_with_its_problem(environ: dict[str, str], problem: str) -> None:
    error = raised(SettingsError, load_settings, GIT_SYNC | environ)

    assert [(next(iter(environ)), problem)] == [(p.setting, p.problem) for p in error.problems]
