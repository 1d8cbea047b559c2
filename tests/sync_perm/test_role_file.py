"""
Reading the current roles file.
"""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sync_perm.roles import MAX_BYTES, RoleFile
from tests.sync_perm.given import KINDS, tables


def reason(file: RoleFile) -> str | None:
    return file.problem.reason if file.problem else None


def said(file: RoleFile) -> list[str]:
    """Read the file, check it without the tables, and return the events."""
    with capture_logs() as logs:
        file.refresh()
        file.compare(tables(), {})
    return [line["event"] for line in logs]


def test_reads_changed_content_again_whatever_the_modification_time(tmp_path: Path) -> None:
    path = tmp_path / "roles.yaml"
    path.write_text("roles: {a: {}}")
    os.utime(path, (0, 0))
    file = RoleFile(str(path), KINDS)
    assert ["roles_file_accepted"] == said(file)
    first, revision = file.document, file.revision
    assert [] == said(file)
    assert first is file.document

    path.write_text("roles: {b: {}}")
    os.utime(path, (0, 0))

    assert ["roles_file_accepted"] == said(file)
    assert revision != file.revision
    assert ["b"] == list(file.document.roles)


def test_logs_each_mistake_once_and_reports_it_until_it_is_fixed(tmp_path: Path) -> None:
    path = tmp_path / "roles.yaml"
    path.write_text("roles:\n  a: {from: x}\n  b: {dags: y}\n")
    file = RoleFile(str(path), KINDS)

    events = said(file), said(file)

    assert (["roles_file_refused"] * 2, []) == events
    assert "roles_file_invalid" == reason(file)
    assert file.problem
    assert f"{path}:2: roles.a.from: is not a list" in file.problem.message
    assert f"{path}:3: roles.b.dags: is not a list" in file.problem.message
    path.write_text("roles: {}")
    assert ["roles_file_accepted"] == said(file)
    assert (None, 0) == (reason(file), len(file.mistakes))


def test_counts_many_mistakes_instead_of_quoting_all(tmp_path: Path) -> None:
    path = tmp_path / "roles.yaml"
    path.write_text("roles:\n" + "".join(f"  r{n}: []\n" for n in range(9)))
    file = RoleFile(str(path), KINDS)
    said(file)

    assert file.problem
    assert file.problem.message.endswith("; and 4 more")
    assert 9 == len(file.mistakes)


@pytest.mark.parametrize("text", [None, b"#" * (MAX_BYTES + 1)], ids=["gone", "too large"])
def test_logs_an_unreadable_file_once(tmp_path: Path, text: bytes | None) -> None:
    path = tmp_path / "roles.yaml"
    path.write_text("roles: {}")
    file = RoleFile(str(path), KINDS)
    said(file)
    path.unlink() if text is None else path.write_bytes(text)

    events = said(file), said(file)

    assert (["roles_file_refused"], []) == events
    assert ("roles_file_unreadable", 1) == (reason(file), len(file.mistakes))
    assert ({}, "") == (file.document.roles, file.revision)
    path.write_text("roles: {}")
    assert ["roles_file_accepted"] == said(file)
