"""
The reasons and advice of file system errors.
"""

import errno
import os

import pytest

from sidecar_runtime.volume.files import explain_os_error


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
