"""
The command line: merged settings, and options that start no daemon.
"""

import os
import subprocess
from pathlib import Path

import pytest

from git_sync_wrapper.command import _read
from sidecar_runtime.errors import SettingsError
from tests.support.daemon import VENV_BIN
from tests.support.raising import raised
from tests.support.scripts import script

REPO = {"GITSYNC_REPO": "https://git.example.com/dags.git"}


@pytest.mark.parametrize(
    ("environ", "field", "value"),
    [
        ({"GITSYNC_PERIOD": "7s"}, "interval_seconds", 7.0),
        ({"GITSYNC_PERIOD": "10ms"}, "interval_seconds", 0.1),
        ({"GITSYNC_ONE_TIME": "true"}, "one_shot", True),
        ({"GIT_SYNC_WRAPPER_ONE_SHOT": "true"}, "one_shot", True),
        ({}, "timeout_seconds", 600.0),
        ({"GITSYNC_SYNC_TIMEOUT": "1h"}, "timeout_seconds", 3720.0),
    ],
)
def test_merges_settings_of_git_sync(
    environ: dict[str, str], field: str, value: object
) -> None:
    settings, _, _ = _read([], REPO | environ)

    assert value == getattr(settings, field)


@pytest.mark.parametrize("link", [".", "..", ".snapshots", ".git-sync/repo"])
def test_refuses_a_link_at_a_reserved_path(tmp_path: Path, link: str) -> None:
    environ = REPO | {"GITSYNC_ROOT": str(tmp_path), "GITSYNC_LINK": link}

    error = raised(SettingsError, _read, [], environ)

    assert ["GITSYNC_LINK"] == [problem.setting for problem in error.problems]


def run(argument: str, code: int = 0, **environ: str) -> str:
    """Run the command, and return its output."""
    command = [str(VENV_BIN / "git-sync-wrapper"), argument]
    environ |= {"PATH": os.environ["PATH"]}
    ran = subprocess.run(
        command, env=environ, capture_output=True, check=False, text=True
    )
    assert code == ran.returncode, ran
    return ran.stdout


def test_version_help_and_manual_need_no_settings(tmp_path: Path) -> None:
    program = script(tmp_path / "git-sync", 'echo "the manual $@"')

    assert "git-sync-wrapper " in run("--version")
    assert "GIT_SYNC_WRAPPER_FSYNC" in run("--help")
    assert "the manual --man\n" == run("--man", GIT_SYNC_WRAPPER_GIT_SYNC=program)


def test_an_unknown_command_exits_with_code_2() -> None:
    said = run("chek", code=2, **REPO)

    assert all(part in said for part in ('"COMMAND"', '"chek"', "is neither check")), (
        said
    )
