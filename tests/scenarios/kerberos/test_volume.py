"""
The ccache's volume is full, closed, gone or read-only: the last ccache stays, whole.
"""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kerberos.given import SABOTAGE
from tests.support.site import Site, assert_tells
from tests.support.waiting import wait_until

RSS_MIB = 48


@pytest.fixture
def small(here: Site) -> Iterator[Path]:
    """The ccache's folder as a volume of 64 KiB."""
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


def test_a_full_volume_keeps_the_last_ccache(here: Site, small: Path) -> None:
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
    wait_until(lambda: daemon.get("/readyz").json()["reason"] is None, "it heals", 20)
    assert before != here.ccache.read_bytes()


def test_whatever_a_consumer_makes_of_the_ccache_is_healed(here: Site) -> None:
    daemon = here.publish()
    for sabotage in SABOTAGE.values():
        here.ccache.unlink()
        sabotage(here.ccache)

        daemon.wait_until_ready()

        assert here.is_valid()
        assert daemon.rss_mib() <= RSS_MIB
