"""
Whatever a neighbor plants at the paths that the sidecar writes beside a ccache, it
writes nowhere else.
"""

import os
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from kerberos_sidecar.libkrb5_child import take
from tests.scenarios.kerberos.test_lockout import make_stale
from tests.support.kerberos.site import Site, failure
from tests.support.machine.plants import PLANTS, Canary, plant
from tests.support.raising import raised

NAMES = (
    ".{name}.refused",
    "..{name}.refused.new",
    ".{name}.0123456789abcdef.new",
    ".{name}.0123456789abcdef.krb5",
    ".krb5.abcdef",
)


def plant_all(here: Site, kind: str, canary: Canary) -> None:
    for name in NAMES:
        plant(kind, here.ccache.parent / name.format(name=here.ccache.name), canary)


@pytest.mark.sample(4)
@pytest.mark.parametrize("kind", PLANTS)
def test_what_is_planted_leads_nowhere_and_hides_no_refusal(
    here: Site, kind: str, tmp_path: Path
) -> None:
    """A restart would try a refused key again, if it could not be noted."""
    canary = Canary(tmp_path / "elsewhere")
    plant_all(here, kind, canary)
    daemon = here.publish()
    assert here.is_valid()
    plant_all(here, kind, canary)
    make_stale(here)
    here.kdc.kadmin(f"modprinc +requires_preauth {here.principal}")
    # It may have tried the first of these keys by itself, or begun to.
    after = len(daemon.events)
    daemon.sighup()

    daemon.wait_for_event("cycle_failed", after=after, reason="keytab_stale")

    canary.assert_untouched()
    daemon.terminate()
    asked = here.kdc.requests()
    said = failure(here.start())
    assert "is not tried again before" in said["error"], said
    assert asked == here.kdc.requests()
    canary.assert_untouched()


def test_a_ccache_planted_where_libkrb5_will_write_is_not_published(here: Site) -> None:
    """libgssapi asks no KDC if the file already contains a valid ticket."""
    here.publish().kill()
    forged = here.ccache.read_bytes()[:-40] + bytes(40)
    here.ccache.unlink()
    asked = here.kdc.requests()
    is_over = Event()

    def plant_beside_each_new_file() -> None:
        while not is_over.is_set():
            for new in here.ccache.parent.glob(".*.new"):
                with suppress(FileExistsError), open(new.with_suffix(".krb5"), "xb") as file:
                    file.write(forged)

    planter = Thread(target=plant_beside_each_new_file)
    planter.start()
    here.publish()
    is_over.set()
    planter.join()

    assert forged != here.ccache.read_bytes()
    assert asked + 1 == here.kdc.requests()


@pytest.mark.parametrize("kind", PLANTS.keys() - {"file"})
def test_what_another_user_exchanges_for_libkrb5s_file_is_not_read(
    tmp_path: Path, kind: str
) -> None:
    plant(kind, tmp_path / "krb5", Canary(tmp_path / "elsewhere"))

    raised(OSError, take, str(tmp_path / "krb5"), os.getuid())
