"""The volume of the ccache is full, read-only or not writable; consumers damage the ccache."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.kerberos.formats import SABOTAGE
from tests.support.kerberos.site import Site, assert_tells, failure
from tests.support.waiting import wait_until


@pytest.fixture
def small(here: Site) -> Iterator[Path]:
    """The folder of the ccache, mounted as a volume of 64 KiB."""
    folder = here.ccache.parent
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small volume needs root and a kernel that lets it mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 512):
            pass
    return filler


def test_keeps_the_last_ccache_when_the_volume_is_full(here: Site, small: Path) -> None:
    daemon = here.publish()
    before = here.ccache.read_bytes()
    filler = fill(small)

    failed = here.refresh(daemon)

    assert "ccache_full" == failed["reason"]
    assert str(small) in failed["error"]
    assert before == here.ccache.read_bytes()
    assert here.is_valid()
    assert_tells(daemon, "ccache_full", ready=True)
    assert [] == here.leftovers("filler")
    filler.unlink()
    wait_until(lambda: daemon.get("/readyz").json()["reason"] is None, "the reason is cleared", 20)
    assert before != here.ccache.read_bytes()


def test_keeps_the_last_ccache_when_the_volume_turns_read_only(here: Site, small: Path) -> None:
    daemon = here.publish()
    before = here.ccache.read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)

    failed = here.refresh(daemon)

    assert "ccache_denied" == failed["reason"]
    assert before == here.ccache.read_bytes()
    assert_tells(daemon, "ccache_denied", ready=True)


def test_reports_a_folder_of_another_user_with_the_uid_that_cannot_write(here: Site) -> None:
    here.ccache.parent.chmod(0o755)
    daemon = here.start(program=here.as_user(50000))

    failed = failure(daemon)

    assert "ccache_denied" == failed["reason"]
    assert str(here.ccache.parent) in failed["error"]
    assert "50000" in failed["error"] + failed["advice"]
    here.ccache.parent.chmod(0o775)
    daemon.wait_until_ready(30)


def test_a_sticky_folder_with_anothers_ccache_is_named_without_a_request_as_by_check(
    here: Site,
) -> None:
    """As in `/tmp`: only the owner of a file there can replace it."""
    here.ccache.write_bytes(b"of root")
    here.ccache.parent.chmod(0o1777)
    program, asked = here.as_user(50000), here.kdc.requests()

    failed = failure(here.start(program=program))
    checked = here.start("check", program=program)

    assert "ccache_denied" == failed["reason"]
    assert 3 == checked.wait_for_exit().code
    assert "ccache_denied" in checked.log()
    assert asked == here.kdc.requests()


def is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def test_restores_the_ccache_whatever_a_consumer_replaces_it_with(here: Site) -> None:
    daemon = here.publish()
    for sabotage in SABOTAGE.values():

        def replace(sabotage: Callable[[Path], object] = sabotage) -> bool:
            here.ccache.unlink()
            with suppress(FileExistsError):  # the sidecar was faster
                sabotage(here.ccache)
                return True
            return False

        wait_until(replace, "it is replaced")

        # klist would wait for the other end of a pipe.
        wait_until(lambda: is_plain(here.ccache) and here.is_valid(), "it is restored")
        wait_until(lambda: daemon.get("/readyz").status == 200, "it is ready")
