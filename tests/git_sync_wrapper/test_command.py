"""
The command line: merged settings, and options that start no daemon.
"""

from pathlib import Path

import pytest

from git_sync_wrapper.command import _read
from sidecar_runtime.errors import SettingsError
from tests.support.daemon import SidecarProcess
from tests.support.git.git_sync import WRAPPER
from tests.support.raising import raised

REPO = {"GITSYNC_REPO": "https://git.example.com/dags.git"}


@pytest.mark.parametrize(
    ("environ", "field", "value"),
    [
        ({"GITSYNC_PERIOD": "10ms"}, "interval_seconds", 0.1),
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


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "said"),
    [
        (["--version"], {}, 0, "git-sync-wrapper "),
        (["--help"], {}, 0, "GIT_SYNC_WRAPPER_FSYNC"),
        (["check", "--help"], {}, 0, "GIT_SYNC_WRAPPER_FSYNC"),
        (["--man"], {}, 0, "GIT_SYNC_WRAPPER_FSYNC"),
        (["chek"], REPO, 2, '"chek", "problem": "is neither check'),
        (["check"], {"GITSYNC_REPO": "https://h/x?t=hush"}, 2, "or set GITSYNC_USER"),
        (["check"], REPO | {"GITSYNC_PASSWORD": "hush"}, 2, "need each other"),
        ([], {"GITSYNC_SYNC_TIMEOUT": "0"}, 2, "from 0.01s to 3650d"),
        ([], {"GITSYNC_MAX_FAILURES": "x"}, 2, '"x", "problem": "is not a whole num'),
        ([], {"GIT_SYNC_WRAPPER_RETAIN_BYTES": "1Gi"}, 2, "limit them with GIT_SYNC_W"),
    ],
)
def test_answers_or_refuses_by_name_before_it_does_anything(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], code: int, said: str
) -> None:
    process = SidecarProcess(WRAPPER, environ, tmp_path, arguments).start()

    assert code == process.wait_for_exit().code, process.log()
    assert said in process.log()
    assert "hush" not in process.log()
