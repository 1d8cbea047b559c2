"""
`kerberos-sidecar check` says what is wrong before a pod does.
"""

import os

from tests.support.daemon import SidecarProcess
from tests.support.kdc import Kdc
from tests.support.site import Site


def check(site: Site, *arguments: str, **settings: str | None) -> tuple[int, str, SidecarProcess]:
    daemon = site.start("check", *arguments, **settings)
    code = daemon.wait_for_exit(90).code
    return code, daemon.log(), daemon


def test_all_is_well(here: Site) -> None:
    before = os.listdir(here.ccache.parent)

    code, said, _ = check(here)

    assert 0 == code, said
    assert here.principal in said
    assert str(here.keytab) in said
    assert before == os.listdir(here.ccache.parent), "check publishes nothing"


def test_a_consumer_that_may_not_read_is_named(here: Site) -> None:
    here.publish(KERBEROS_CCACHE_MODE="0600").terminate()

    code, said, _ = check(here, "--consumer", "50001:50001", KERBEROS_CCACHE_MODE="0600")

    assert 3 == code, said
    assert "50001" in said


def test_a_kdc_that_hangs_does_not_hang_it(here: Site, running_kdc: Kdc) -> None:
    running_kdc.hang()

    code, said, _ = check(here, KERBEROS_TIMEOUT="3s")

    assert 3 == code
    assert "KDC" in said
