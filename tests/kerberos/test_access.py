"""
Whether a consumer can read a file.
"""

import os
from pathlib import Path

import pytest

from kerberos_sidecar.access import Consumer, consumer, obstacle

OWN = Consumer(50000, 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for folder in list(tmp_path.parents)[:3]:
        folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    path = tmp_path / "ccache"
    path.write_bytes(b"")
    path.chmod(0o640)
    return path


def test_parses_a_uid_and_gid_and_refuses_other_text() -> None:
    assert Consumer(50000, 0) == consumer("50000:0")
    for text in ("", "50000", "a:b", "1:2:3", "-1:0"):
        with pytest.raises(ValueError, match="is not UID:GID"):
            consumer(text)


def test_mode_0640_lets_the_group_read_but_not_others(path: Path) -> None:
    gid = path.stat().st_gid

    assert "" == obstacle(str(path), Consumer(50000, gid))
    assert f"{path} has mode 0640" in obstacle(str(path), Consumer(50000, gid + 1))


def test_only_the_owner_bits_count_for_the_owner(path: Path) -> None:
    path.chmod(0o040)
    if os.getuid() == 0:
        os.chown(path, 50000, -1)
    found = path.stat()

    assert "0040" in obstacle(str(path), Consumer(found.st_uid, found.st_gid))


def test_root_can_read_everything(path: Path) -> None:
    path.chmod(0o000)

    assert "" == obstacle(str(path), Consumer(0, 0))


def test_names_the_first_folder_that_the_consumer_cannot_enter(path: Path) -> None:
    path.chmod(0o644)
    path.parent.chmod(0o750)

    assert f"{path.parent} has mode 0750" in obstacle(str(path), Consumer(50000, 12345))


def test_judges_a_missing_file_by_its_planned_mode_and_owner(path: Path) -> None:
    path.unlink()

    assert "" == obstacle(str(path), OWN, (0o640, 1000, 0))
    assert "mode 0600, uid 1000" in obstacle(str(path), OWN, (0o600, 1000, 0))
    assert "No such file" in obstacle(str(path), OWN)
    assert "No such file" in obstacle(str(path.parent / "missing" / "ccache"), OWN)
