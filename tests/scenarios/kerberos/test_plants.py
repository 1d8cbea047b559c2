"""
Whatever a neighbor plants at the paths that the sidecar writes beside a ccache, it
writes nowhere else.
"""

from pathlib import Path
from shutil import copy

import pytest

from kerberos_sidecar.libkrb5_child import take
from tests.scenarios.kerberos.test_lockout import make_stale
from tests.support.kerberos.site import Site, failure
from tests.support.machine.plants import PLANTS, Canary, plant
from tests.support.raising import raised
from tests.support.waiting import wait_until

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
    asked = here.kdc.requests()
    daemon = here.start()
    (new,) = wait_until(lambda: [*here.ccache.parent.glob(".*.new")], "it asks")

    copy(here.ccache, new.with_suffix(".krb5"))

    daemon.wait_until_synced()
    assert asked < here.kdc.requests()
    raised(PermissionError, take, str(here.ccache), -1)  # nobody's, so not ours
