"""`kerberos-sidecar check` reports faults before a pod starts."""

import os

from tests.support.kerberos.kdc import Kdc
from tests.support.kerberos.site import Site
from tests.support.program import own_port


def check(site: Site, *arguments: str, **settings: str | None) -> tuple[int, str]:
    daemon = site.start("check", *arguments, **settings)
    return daemon.wait_for_exit(90).code, daemon.log()


def test_reports_a_consumer_that_cannot_read_the_ccache_and_publishes_nothing(here: Site) -> None:
    before = os.listdir(here.ccache.parent)

    code, said = check(here)
    assert 0 == code, said
    assert here.principal in said
    assert str(here.keytab) in said

    code, said = check(here, "--consumer", "50001:50001", KERBEROS_CCACHE_MODE="0600")
    assert 3 == code, said
    assert "50001" in said
    assert before == os.listdir(here.ccache.parent)


def test_fails_instead_of_hanging_when_the_kdc_hangs(here: Site, running_kdc: Kdc) -> None:
    running_kdc.hang()

    code, said = check(here, KERBEROS_TIMEOUT="3s")

    assert 3 == code
    assert "KDC" in said


def test_reports_that_the_running_daemon_has_published(here: Site) -> None:
    settings = {
        "KERBEROS_HTTP_BIND": f"127.0.0.1:{own_port()}",
        "KERBEROS_STATUS_PAGE": "false",
    }
    here.publish(**settings)

    code, said = check(here, **settings)

    assert (0, True) == (code, "has published" in said), said
