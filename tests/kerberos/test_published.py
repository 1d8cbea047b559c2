"""
Reading the published ccache.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kerberos_sidecar.formats.principal import parse_principal
from kerberos_sidecar.published import Published
from tests.kerberos.given import as_nobody, ccache, open_way, tgt

END = 1_700_036_000


def test_reads_a_valid_ccache_and_its_modification_time(path: Path) -> None:
    path.write_bytes(ccache(tgt(END)))
    os.utime(path, (7.5, 7.5))

    found = Published(str(path), 0o640).look()

    assert found.ticket is not None
    assert (END, 7.5, "") == (found.ticket.ends_at, found.published_at, found.problem)


def test_distinguishes_a_missing_ccache_from_an_invalid_one(path: Path) -> None:
    published = Published(str(path), 0o640)

    missing = published.look()
    path.write_bytes(b"half")
    bad = published.look()

    assert (None, None) == (missing.ticket, missing.published_at)
    assert "cannot be found (No such file or directory)" == missing.problem
    assert bad.published_at is not None
    assert "is not a version 4 ccache" == bad.problem


def test_does_not_read_a_file_that_is_too_large_for_a_ccache(path: Path) -> None:
    """A consumer with write access can create a sparse file of any size."""
    path.touch()
    os.truncate(path, 1 << 30)

    assert "cannot be read (it has 1073741824 bytes)" == Published(str(path), 0o640).look().problem


def test_reads_the_ccache_again_only_when_it_has_changed(path: Path) -> None:
    path.write_bytes(ccache(tgt(END)))
    published = Published(str(path), 0o640)
    first = published.look()

    assert first is published.look()
    path.with_name("new").write_bytes(ccache(tgt(END + 5)))
    path.with_name("new").rename(path)
    second = published.look().ticket

    assert second is not None and END + 5 == second.ends_at


def test_notices_changed_content_even_if_the_modification_time_is_reset(path: Path) -> None:
    """A consumer with our uid can reset the modification time, as `cp -p` does."""
    path.write_bytes(ccache(tgt(END)))
    published, before = Published(str(path), 0o640), path.stat()
    published.look()

    path.write_bytes(ccache(tgt(END, name="nobodys"), name="nobodys"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert before.st_size == path.stat().st_size

    assert "nobodys@EXAMPLE.COM" in published.look().problem_at(0.0, parse_principal("airflow@R"))


@pytest.mark.parametrize("kind", ["folder", "pipe", "symlink", "closed"])
def test_reports_a_special_or_unreadable_file_without_hanging(path: Path, kind: str) -> None:
    make: dict[str, Callable[[], object]] = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "symlink": lambda: path.symlink_to("/dev/zero"),
        "closed": lambda: path.touch(0o600),
    }
    make[kind]()
    open_way(path)
    with as_nobody():
        found = Published(str(path), 0o640).look()

    assert found.ticket is None
    assert "cannot be read" in found.problem
    assert kind != "closed" or "(Permission denied)" in found.problem


@pytest.mark.parametrize(
    ("mode", "wanted", "problem"),
    [
        (0o600, 0o640, "has mode 0600 but needs at least 0640"),  # as kinit creates it
        (0o640, 0o644, "has mode 0640 but needs at least 0644"),
        (0o640, 0o640, ""),
        (0o644, 0o640, ""),
        (0o600, 0o600, ""),
    ],
)
def test_reports_a_mode_without_the_bits_that_consumers_need(
    path: Path, mode: int, wanted: int, problem: str
) -> None:
    path.write_bytes(ccache(tgt(END)))
    published = Published(str(path), wanted)
    path.chmod(wanted)
    assert "" == published.look().problem

    path.chmod(mode)

    assert problem == published.look().problem
    assert problem == published.look().problem_at(END - 1, None)


def test_reports_another_group_unless_the_file_system_assigned_it(path: Path) -> None:
    """An EFS access point assigns its own group to every file."""
    if os.getuid() != 0:
        pytest.skip("only root gives files away")
    path.write_bytes(ccache(tgt(END)))
    path.chmod(0o640)
    os.chown(path, -1, 12345)
    published = Published(str(path), 0o640)

    first = published.look().problem
    published.group = 12345

    assert (f"has group 12345, not its folder's group {path.parent.stat().st_gid}", "") == (
        first,
        published.look().problem,
    )
    published.group = None
    path.chmod(0o644)
    assert "" == published.look().problem
