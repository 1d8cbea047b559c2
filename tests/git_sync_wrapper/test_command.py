"""
The command line: merged settings, warnings, and options that start no daemon.
"""

import os
import subprocess
from pathlib import Path

import pytest

from git_sync_wrapper import command
from git_sync_wrapper.command import _check_link, _joined, _warn
from git_sync_wrapper.flags.options import Options, read_options
from git_sync_wrapper.settings import Settings, load_settings
from sidecar_runtime.errors import SettingsError
from tests.runtime.recording import Log
from tests.support.daemon import VENV_BIN
from tests.support.raising import raised
from tests.support.scripts import script

REPO = {"GITSYNC_REPO": "https://git.example.com/dags.git"}


def test_reports_wrapper_and_git_sync_problems_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["git-sync-wrapper", "--period=abc"])
    for name in [*os.environ]:
        monkeypatch.delenv(name)

    error = raised(SettingsError, command.run)

    names = {problem.setting for problem in error.problems}
    assert {"GIT_SYNC_WRAPPER_GIT_SYNC", "--period", "--repo"} == names


def read(**environ: str) -> tuple[Settings, Options]:
    settings, _ = load_settings({"GIT_SYNC_WRAPPER_GIT_SYNC": "/bin/true", **environ})
    return settings, read_options([], REPO | environ)


@pytest.mark.parametrize(
    ("environ", "field", "value"),
    [
        ({"GITSYNC_PERIOD": "7s"}, "interval_seconds", 7.0),
        ({"GITSYNC_PERIOD": "10ms"}, "interval_seconds", 0.1),
        ({"GITSYNC_ONE_TIME": "true"}, "one_shot", True),
        ({"GIT_SYNC_WRAPPER_ONE_SHOT": "true"}, "one_shot", True),
        ({}, "timeout_seconds", 600.0),
        ({"GITSYNC_SYNC_TIMEOUT": "1h"}, "timeout_seconds", 7380.0),
        ({"GITSYNC_SYNC_TIMEOUT": "1h", "GITSYNC_SUBMODULES": "off"}, "timeout_seconds", 3720.0),
    ],
)
def test_merges_settings_of_git_sync(environ: dict[str, str], field: str, value: object) -> None:
    assert value == getattr(_joined(*read(**environ)), field)


@pytest.mark.parametrize("link", [".", "..", ".snapshots", ".git-sync/repo"])
def test_refuses_a_link_at_a_reserved_path(tmp_path: Path, link: str) -> None:
    _, options = read(GITSYNC_ROOT=str(tmp_path), GITSYNC_LINK=link)

    with pytest.raises(SettingsError, match="GITSYNC_LINK"):
        _check_link(options)


def test_warns_about_overridden_and_unused_settings_and_hides_arguments(log: Log) -> None:
    environ = {
        "GITSYNC_REF": "new",
        "GIT_SYNC_BRANCH": "old",
        "GITSYNC_HTTP_BIND": ":1234",
        "GITSYNC_HTTP_PPROF": "true",
    }

    _warn(read_options(["--one-time", "hunter2"], REPO | environ))

    assert [
        ("setting_overridden", "GIT_SYNC_BRANCH", "GITSYNC_REF"),
        ("setting_unused", "arguments", 1),
        ("setting_unused", "--http-pprof", None),
    ] == [(e["event"], e["setting"], e.get("by", e.get("count"))) for e in log.events()]
    assert "hunter2" not in str(log.events()), "an argument may be a password"


def run(argument: str, code: int = 0, **environ: str) -> str:
    """Run the command, and return its output."""
    command = [str(VENV_BIN / "git-sync-wrapper"), argument]
    environ |= {"PATH": os.environ["PATH"]}
    ran = subprocess.run(command, env=environ, capture_output=True, check=False, text=True)
    assert code == ran.returncode, ran
    return ran.stdout


@pytest.mark.parametrize(
    ("argument", "said"), [("--version", "git-sync-wrapper "), ("--help", "GIT_SYNC_WRAPPER_MODE")]
)
def test_version_and_help_need_no_settings(argument: str, said: str) -> None:
    assert said in run(argument)


def test_man_prints_git_syncs_own_manual(tmp_path: Path) -> None:
    program = script(tmp_path / "git-sync", 'echo "the manual $@"')

    assert "the manual --man\n" == run("--man", GIT_SYNC_WRAPPER_GIT_SYNC=program)


def test_an_unknown_command_exits_with_code_2() -> None:
    said = run("chek", code=2, GIT_SYNC_WRAPPER_GIT_SYNC="/bin/true", **REPO)

    assert all(part in said for part in ('"COMMAND"', '"chek"', "is neither check")), said
