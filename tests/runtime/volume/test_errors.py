"""
The reasons and advice of file system errors.
"""

import errno
import os
from pathlib import Path

import pytest

from sidecar_runtime.volume.files import TargetError, explain_os_error, explained


@pytest.mark.parametrize(
    ("number", "reason", "advice"),
    [
        (errno.ENOSPC, "target_full", "the node's disk"),
        (errno.EDQUOT, "target_full", "the node's disk"),
        (errno.EACCES, "target_denied", "fsGroup"),
        (errno.EPERM, "target_denied", "fsGroup"),
        (errno.EROFS, "target_denied", "writable"),
        (errno.EXDEV, "target_failed", "Another volume is mounted at that path"),
        (errno.EIO, "target_failed", "Check the volume"),
        (errno.ESTALE, "target_failed", "Check the volume"),
    ],
)
def test_file_system_errors_have_a_reason_and_advice(number: int, reason: str, advice: str) -> None:
    error = explain_os_error(OSError(number, os.strerror(number)), "cannot write '/dags/a.py'")

    assert error.reason == reason
    assert advice in error.advice
    assert error.message.startswith(f"cannot write '/dags/a.py': {os.strerror(number)}")


def test_a_permission_error_shows_uid_and_gid() -> None:
    error = explain_os_error(PermissionError(errno.EACCES, "Permission denied"), "cannot write")

    assert f"(as uid {os.getuid()}, gid {os.getgid()})" in error.message


def test_explains_an_error_without_errno() -> None:
    assert "cannot write: odd" == explain_os_error(OSError("odd"), "cannot write").message


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("files", "free", "is_named"),
    [(100, 0, True), (100, 1, False), (0, 0, False)],
    ids=["no free inodes", "inodes are free", "inodes are not counted"],
)
def test_distinguishes_a_volume_without_free_inodes_from_a_full_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, free: int, is_named: bool
) -> None:
    found = os.statvfs_result((*os.statvfs(tmp_path)[:5], files, free, free, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: found)

    error = explain_os_error(FULL, "cannot write", str(tmp_path))

    assert "target_full" == error.reason
    assert error.message.endswith("(no free inodes)") is is_named
    assert ("more inodes" in error.advice) is is_named
    assert ("the node's disk" in error.advice) is not is_named


def test_explains_a_full_volume_that_no_longer_exists(tmp_path: Path) -> None:
    error = explain_os_error(FULL, "cannot write", str(tmp_path / "gone"))

    assert "the node's disk" in error.advice


def test_explained_converts_only_file_system_errors(tmp_path: Path) -> None:
    with (
        pytest.raises(TargetError, match=r"cannot look: No such file") as caught,
        explained("cannot look"),
    ):
        os.stat(tmp_path / "missing")
    assert isinstance(caught.value.__cause__, FileNotFoundError)

    with pytest.raises(KeyError), explained("cannot look"):
        raise KeyError
