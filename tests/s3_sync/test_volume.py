"""
The file system below the target, and what its failures mean.
"""

import errno
import os
from pathlib import Path

import pytest

from s3_sync.volume import explain_os_error, is_link, open_folders, open_own_folder, set_mode
from tests.runtime.recording import Log


@pytest.mark.parametrize(
    ("number", "reason", "advice"),
    [
        (errno.ENOSPC, "target_full", "sizeLimit"),
        (errno.EDQUOT, "target_full", "sizeLimit"),
        (errno.EACCES, "target_denied", "fsGroup"),
        (errno.EPERM, "target_denied", "fsGroup"),
        (errno.EROFS, "target_denied", "writable"),
        (errno.EXDEV, "target_failed", "Another volume is mounted there"),
        (errno.EIO, "target_failed", "Look at the volume"),
        (errno.ESTALE, "target_failed", "Look at the volume"),
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
    assert explain_os_error(OSError("odd"), "cannot write").message == "cannot write: odd"


def test_opens_the_folders_and_makes_what_is_missing(tmp_path: Path) -> None:
    for _ in range(2):
        for fd in open_folders(str(tmp_path / "a/b")):
            assert os.get_inheritable(fd) is False
            os.close(fd)

    assert (tmp_path / "a/b/.s3-sync").is_dir()


@pytest.mark.parametrize("to", ["elsewhere", "nowhere", "file", ".s3-sync"])
def test_a_link_in_place_of_our_folder_is_replaced(tmp_path: Path, log: Log, to: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / ".s3-sync").symlink_to(to)
    parent = os.open(tmp_path, os.O_RDONLY)

    fd = open_own_folder(".s3-sync", parent)

    assert os.path.samestat(os.fstat(fd), (tmp_path / ".s3-sync").lstat())
    assert [".s3-sync"] == [event["path"] for event in log.events("symlink_replaced")]
    assert sorted(os.listdir(tmp_path)) == [".s3-sync", "elsewhere", "file"]
    os.close(fd)
    os.close(parent)


def test_a_file_in_place_of_our_folder_stays(tmp_path: Path) -> None:
    (tmp_path / ".s3-sync").write_text("x")
    parent = os.open(tmp_path, os.O_RDONLY)

    with pytest.raises(NotADirectoryError):
        open_own_folder(".s3-sync", parent)

    assert (tmp_path / ".s3-sync").read_text() == "x"
    os.close(parent)


def test_tells_links_from_what_they_point_to(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "broken").symlink_to("nowhere")
    fd = os.open(tmp_path, os.O_RDONLY)

    assert [False, True, True, False] == [
        is_link(name, fd) for name in ("folder", "link", "broken", "missing")
    ]
    os.close(fd)


def test_sets_the_mode(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT, 0o600)

    set_mode(fd, 0o640)

    assert os.fstat(fd).st_mode & 0o777 == 0o640
    os.close(fd)
