"""
Settings that cannot be meant end the process with code 2 and one line each.
"""

import pytest

from tests.support.site import Site

WRONG = {
    "DIR ccache": ({"KERBEROS_CCACHE": "DIR:/tmp/krb5cc"}, "KERBEROS_CCACHE"),
    "KCM ccache": ({"KERBEROS_CCACHE": "KCM:"}, "KERBEROS_CCACHE"),
    "KEYRING ccache": ({"KERBEROS_CCACHE": "KEYRING:persistent:0"}, "KERBEROS_CCACHE"),
    "MEMORY ccache": ({"KERBEROS_CCACHE": "MEMORY:x"}, "KERBEROS_CCACHE"),
    "relative ccache": ({"KERBEROS_CCACHE": "krb5cc"}, "KERBEROS_CCACHE"),
    "relative keytab": ({"KERBEROS_KEYTAB": "airflow.keytab"}, "KERBEROS_KEYTAB"),
    "mode": ({"KERBEROS_CCACHE_MODE": "640x"}, "KERBEROS_CCACHE_MODE"),
    "interval": ({"INTERVAL": "soon"}, "INTERVAL"),
    "misspelt": ({"KERBEROS_KEYTBA": "/x"}, "KERBEROS_KEYTBA"),
    "interval with our prefix": ({"KERBEROS_INTERVAL": "5m"}, "KERBEROS_INTERVAL"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_setting_is_named(here: Site, name: str) -> None:
    settings, wrong = WRONG[name]
    daemon = here.start(**settings)

    ended = daemon.wait_for_exit()

    assert 2 == ended.code
    (rejected,) = daemon.find_events("setting_rejected")
    assert wrong == rejected["setting"]
    assert rejected["problem"]
    assert [] == daemon.stray_lines
    assert not here.ccache.exists()


def test_a_ccache_with_its_type_before_it_is_understood(here: Site) -> None:
    here.publish(KERBEROS_CCACHE=f"FILE:{here.ccache}")

    assert here.is_valid()


def test_variables_that_kubernetes_injects_for_services_do_not_matter(here: Site) -> None:
    here.publish(
        KERBEROS_PORT="tcp://10.0.0.1:88",
        KERBEROS_SERVICE_HOST="10.0.0.1",
        KERBEROS_PORT_88_TCP_ADDR="10.0.0.1",
        KERBEROS_KDC_SERVICE_PORT="88",
    )


def test_a_wrong_name_for_the_interval_is_answered_with_the_right_one(here: Site) -> None:
    daemon = here.start(KERBEROS_INTERVAL="5m")
    daemon.wait_for_exit()

    assert " INTERVAL" in daemon.find_events("setting_rejected")[0]["problem"]


def test_dry_run_publishes_nothing(here: Site) -> None:
    daemon = here.start(KERBEROS_DRY_RUN="true")

    daemon.wait_until_synced()

    assert not here.ccache.exists()
    assert [] == here.leftovers()


@pytest.mark.parametrize(("argument", "text"), [("--help", "KERBEROS"), ("--version", "0.1.0")])
def test_help_and_version(here: Site, argument: str, text: str) -> None:
    daemon = here.start(argument)

    assert 0 == daemon.wait_for_exit().code
    assert text in "\n".join(daemon.stray_lines)
