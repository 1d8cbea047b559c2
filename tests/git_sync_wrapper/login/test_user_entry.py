"""
An entry in /etc/passwd for a UID that has none.
"""

import os
from pathlib import Path

import pytest

from git_sync_wrapper.login.user_entry import user_entry


def test_does_nothing_for_a_uid_with_an_entry(tmp_path: Path) -> None:
    assert {} == user_entry(str(tmp_path))
    assert [] == list(tmp_path.iterdir())


def test_adds_an_entry_for_a_missing_uid_to_a_copy_of_etc_passwd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 123_456)
    library = tmp_path / "libnss_wrapper.so"
    library.touch()

    environ = user_entry(str(tmp_path), libraries=str(library))

    lines = Path(environ["NSS_WRAPPER_PASSWD"]).read_text().splitlines()
    assert "libnss_wrapper.so" == environ["LD_PRELOAD"]
    assert Path("/etc/passwd").read_text().splitlines() == lines[:-1]
    assert lines[-1].startswith(f"git-sync:x:123456:{os.getgid()}:")


def test_does_nothing_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 123_456)

    assert {} == user_entry(str(tmp_path), libraries=str(tmp_path / "missing"))
