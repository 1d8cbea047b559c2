"""
Failures of the file system, with advice.
"""

import errno
import os
from pathlib import Path

import pytest

from sidecar_runtime.volume.errors import TargetError, explain_os_error, explained


@pytest.mark.parametrize(
    ("number", "reason", "advice"),
    [
        (errno.ENOSPC, "target_full", "sizeLimit"),
        (errno.EDQUOT, "target_full", "sizeLimit"),
        (errno.EACCES, "target_denied", "fsGroup"),
        (errno.EPERM, "target_denied", "fsGroup"),
        (errno.EROFS, "target_denied", "writable"),
        (errno.EXDEV, "target_failed", "Another volume is mounted at that path"),
        (errno.EIO, "target_failed", "Check the volume"),
        (errno.ESTALE, "target_failed", "Check the volume"),
    ],
)
def test_failures_of_the_file_system_are_explained(number: int, reason: str, advice: str) -> None:
    error = explain_os_error(OSError(number, os.strerror(number)), "cannot write '/dags/a.py'")

    assert error.reason == reason
    assert advice in error.advice
    assert error.message.startswith(f"cannot write '/dags/a.py': {os.strerror(number)}")


def test_who_was_denied_is_named() -> None:
    error = explain_os_error(PermissionError(errno.EACCES, "Permission denied"), "cannot write")

    assert f"(as uid {os.getuid()}, gid {os.getgid()})" in error.message


def test_an_error_without_a_number_is_explained_too() -> None:
    assert "cannot write: odd" == explain_os_error(OSError("odd"), "cannot write").message


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("files", "free", "is_named"),
    [(100, 0, True), (100, 1, False), (0, 0, False)],
    ids=["no free inodes", "inodes are free", "inodes are not counted"],
)
def test_a_volume_without_a_free_inode_is_told_from_a_full_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, free: int, is_named: bool
) -> None:
    found = os.statvfs_result((*os.statvfs(tmp_path)[:5], files, free, free, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: found)

    error = explain_os_error(FULL, "cannot write", str(tmp_path))

    assert "target_full" == error.reason
    assert error.message.endswith("(no free inodes)") is is_named
    assert ("more inodes" in error.advice) is is_named
    assert ("sizeLimit" in error.advice) is not is_named


def test_a_full_volume_that_is_gone_by_now_is_explained_too(tmp_path: Path) -> None:
    error = explain_os_error(FULL, "cannot write", str(tmp_path / "gone"))

    assert "sizeLimit" in error.advice


def test_explained_turns_failures_of_the_file_system_and_no_others(tmp_path: Path) -> None:
    with (
        pytest.raises(TargetError, match=r"cannot look: No such file") as caught,
        explained("cannot look"),
    ):
        os.stat(tmp_path / "missing")
    assert isinstance(caught.value.__cause__, FileNotFoundError)

    with pytest.raises(KeyError), explained("cannot look"):
        raise KeyError
