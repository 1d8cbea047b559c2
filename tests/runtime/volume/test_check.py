"""
The test whether a target folder is writable.
"""

import os
from pathlib import Path

import pytest

from sidecar_runtime.volume.check import try_folder
from sidecar_runtime.volume.errors import TargetError


def test_a_folder_can_be_written_and_is_left_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert try_folder("target", str(tmp_path))

    assert f"{tmp_path} is writable as uid {os.getuid()}" in capsys.readouterr().out
    assert [] == os.listdir(tmp_path)


def test_one_that_can_be_made_is_fine_and_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert try_folder("target", str(tmp_path / "a/b"))

    assert "a/b (the daemon will create it) is writable" in capsys.readouterr().out
    assert [] == os.listdir(tmp_path)


def test_one_that_cannot_be_written_is_explained() -> None:
    with pytest.raises(TargetError, match="cannot write to /proc"):
        try_folder("target", "/proc/target")
