"""
The check whether a target folder is writable.
"""

import os
from pathlib import Path

import pytest

from sidecar_runtime.volume.check import try_folder
from sidecar_runtime.volume.errors import TargetError


def test_reports_a_writable_folder_and_leaves_it_unchanged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert try_folder("target", str(tmp_path), needs_symlinks=True)

    assert f"{tmp_path} is writable as uid {os.getuid()}" in capsys.readouterr().out
    assert [] == os.listdir(tmp_path)


def test_accepts_a_missing_folder_without_creating_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert try_folder("target", str(tmp_path / "a/b"), needs_symlinks=True)

    assert "a/b (the daemon will create it) is writable" in capsys.readouterr().out
    assert [] == os.listdir(tmp_path)


def test_a_folder_that_is_not_writable_is_an_error() -> None:
    with pytest.raises(TargetError, match="cannot write to /proc"):
        try_folder("target", "/proc/target", needs_symlinks=False)
