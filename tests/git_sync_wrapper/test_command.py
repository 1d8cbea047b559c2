"""
The command line: merged settings, and options that start no daemon.
"""

from pathlib import Path

import pytest

from git_sync_wrapper.command import _read
from tests import Texts
from tests.support.daemon import SidecarProcess
from tests.support.git.git_sync import WRAPPER

REPO = {"GITSYNC_REPO": "https://git.example.com/dags.git"}


def test_polls_are_not_too_close_and_a_cycle_may_take_longer_than_git_sync() -> None:

    settings, _, _ = _read(
        [], REPO | {"GITSYNC_PERIOD": "10ms", "GITSYNC_SYNC_TIMEOUT": "1h"}
    )

    assert (0.1, 3720.0) == (settings.interval_seconds, settings.timeout_seconds)


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "said"),
    [
        (["--version"], {}, 0, "git-sync-wrapper "),
        (["--help"], {}, 0, "GIT_SYNC_WRAPPER_FSYNC"),
        (["--man"], {}, 0, "GIT_SYNC_WRAPPER_FSYNC"),
        (["chek"], REPO, 2, '"chek", "problem": "is neither check'),
        (["check"], {"GITSYNC_REPO": "https://h/x?t=hush"}, 2, "or set GITSYNC_USER"),
        (["check"], REPO | {"GITSYNC_PASSWORD": "hush"}, 2, "need each other"),
        ([], {"GITSYNC_SYNC_TIMEOUT": "0"}, 2, "from 0.01s to 3650d"),
        ([], REPO | {"GITSYNC_LINK": ".."}, 2, "is reserved: use another name"),
        ([], REPO | {"GITSYNC_LINK": ".git-sync/repo"}, 2, "is reserved: use another"),
        ([], {"GITSYNC_MAX_FAILURES": "x"}, 2, '"x", "problem": "is not a whole num'),
        ([], {"GIT_SYNC_WRAPPER_TIMEOUT": "8d"}, 2, "from 1s to 7d"),
        ([], {"GIT_SYNC_WRAPPER_RETAIN_BYTES": "1Gi"}, 2, "limit them with GIT_SYNC_W"),
    ],
)
def test_answers_or_refuses_by_name_before_it_does_anything(
    tmp_path: Path, arguments: list[str], environ: Texts, code: int, said: str
) -> None:
    process = SidecarProcess(WRAPPER, environ, tmp_path, arguments).start()

    assert code == process.wait_for_exit().code, process.log()
    assert said in process.log()
    assert "hush" not in process.log()
