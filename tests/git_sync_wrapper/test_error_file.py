"""
The file of `--error-file`.
"""

import json
from pathlib import Path

from git_sync_wrapper.engine.engine import GitSyncFailed
from git_sync_wrapper.error_file import ErrorFile
from sidecar_runtime.errors import SidecarError
from tests.runtime.recording import Log

DOWN = SidecarError("remote_unreachable", "connection refused", "look")


def test_writes_a_failure_in_git_syncs_format(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "error.json"

    ErrorFile(str(path)).write(DOWN, 3)

    expected = {"Msg": DOWN.reason, "Err": "connection refused", "Args": {"failCount": 3}}
    assert expected == json.loads(path.read_text())


def test_copies_the_report_that_git_sync_wrote(tmp_path: Path) -> None:
    path = tmp_path / "error.json"

    ErrorFile(str(path)).write(GitSyncFailed(DOWN, '{"Msg":"its own"}'), 1)

    assert '{"Msg":"its own"}' == path.read_text()


def test_removes_the_file_of_an_earlier_process(tmp_path: Path) -> None:
    path = tmp_path / "error.json"
    ErrorFile(str(path)).write(DOWN, 1)
    ErrorFile("").remove()
    assert path.exists()

    ErrorFile(str(path)).remove()

    assert not path.exists()


def test_a_file_that_cannot_be_written_is_logged(log: Log) -> None:
    ErrorFile("/proc/no/error.json").write(DOWN, 1)

    assert "/proc/no/error.json" == log.events("error_file_failed")[0]["path"]
