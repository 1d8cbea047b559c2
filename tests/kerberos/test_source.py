"""
Finding the keytab, and detecting changes to it.
"""

import os
from pathlib import Path

import pytest

from kerberos_sidecar.entries import Entry
from kerberos_sidecar.formats.keytab import KeytabError
from kerberos_sidecar.source import Source
from tests.kerberos.given import as_nobody, ccache, entry, keytab, open_way
from tests.support.raising import raised

CONTENT = keytab(entry())


def source(folder: Path, path: Path | None = None) -> Source:
    own = folder / "ccache"
    return Source(
        Entry(None, str(path) if path else None, str(own), 0o640), str(folder), [str(own)]
    )


def refused(folder: Path) -> KeytabError:
    return raised(KeytabError, source(folder).find)


def test_uses_the_named_keytab_even_if_it_does_not_exist(tmp_path: Path) -> None:
    assert "/etc/x.keytab" == source(tmp_path, Path("/etc/x.keytab")).find()


def test_finds_the_only_keytab_in_the_folder_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "whatever").write_bytes(CONTENT)
    (tmp_path / "README").write_bytes(b"how to rotate it")
    (tmp_path / "folder").mkdir()
    (tmp_path / ".hidden").write_bytes(CONTENT)
    (tmp_path / "ccache").write_bytes(ccache())

    assert str(tmp_path / "whatever") == source(tmp_path).find()


@pytest.mark.parametrize("holds", ["nothing", "our own ccache", "no such folder"])
def test_reports_a_folder_that_contains_no_keytab(tmp_path: Path, holds: str) -> None:
    if holds == "our own ccache":
        (tmp_path / "ccache").write_bytes(CONTENT)

    error = refused(tmp_path / "missing" if holds == "no such folder" else tmp_path)

    assert ("keytab_missing", True) == (error.reason, "contains no keytab" in error.message)


def test_reports_the_names_of_several_keytabs_in_the_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(CONTENT)

    error = refused(tmp_path)

    assert "keytab_ambiguous" == error.reason
    assert "contains 2 keytabs: a, b" in error.message


def test_uses_the_only_file_even_if_it_is_not_a_keytab(tmp_path: Path) -> None:
    """The error is then about the file, not about a missing keytab."""
    (tmp_path / "k").write_bytes(b"BQIAAA==")

    assert str(tmp_path / "k") == source(tmp_path).find()


def test_reports_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(CONTENT)
    with as_nobody():
        error = refused(tmp_path)

    assert "keytab_unreadable" == error.reason


def test_finds_the_keytab_beside_a_symlink_that_cannot_be_followed(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(CONTENT)
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("closed/file")
    open_way(tmp_path / "k")

    with as_nobody():
        assert str(tmp_path / "k") == source(tmp_path).find()


@pytest.mark.parametrize("is_named", [True, False])
def test_every_change_of_the_keytab_changes_the_stamp(tmp_path: Path, is_named: bool) -> None:
    path = tmp_path / "k"
    one = source(tmp_path, path if is_named else None)
    stamps = [one.stamp()]

    path.write_bytes(CONTENT)
    stamps.append(one.stamp())
    path.write_bytes(CONTENT + CONTENT)
    stamps.append(one.stamp())
    os.utime(path, ns=(1, 1))
    stamps.append(one.stamp())
    (tmp_path / "new").write_bytes(CONTENT)
    (tmp_path / "new").rename(path)
    stamps.append(one.stamp())
    path.unlink()

    assert () == stamps[0] == one.stamp()
    assert 5 == len(set(stamps))


def test_an_updated_kubernetes_secret_changes_the_stamp(tmp_path: Path) -> None:
    """The kubelet swaps one symlink; the file's own symlink does not change."""
    for name in ("..1", "..2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "k").write_bytes(CONTENT)
        os.utime(tmp_path / name / "k", (1, 1))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "k").symlink_to("..data/k")
    one = source(tmp_path)
    assert str(tmp_path / "k") == one.find()
    before = one.stamp()

    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    assert before != one.stamp()
    assert one.stamp() == one.stamp()


def test_publishing_a_ccache_into_the_folder_does_not_change_the_stamp(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(CONTENT)
    one = source(tmp_path)
    before = one.stamp()

    (tmp_path / "ccache").write_bytes(b"x")
    (tmp_path / ".ccache.0123.new").write_bytes(b"x")

    assert before == one.stamp()
