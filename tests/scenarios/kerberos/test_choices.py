"""
Which keytab, principal and ccache a sidecar uses, and what its settings change.
"""

import os
import socket
from pathlib import Path

import pytest

from tests.scenarios.kerberos.test_lockout import make_stale, refusals
from tests.support.kerberos.kdc import run_client
from tests.support.kerberos.site import Site, assert_tells, failure

GROUP = 4321
UNSET = dict.fromkeys(
    ("KERBEROS_KEYTAB", "KERBEROS_PRINCIPAL", "KERBEROS_CCACHE", "INTERVAL")
)


def listing(site: Site, ccache: Path | None = None) -> str:
    return run_client(["klist", "-C", "-f"], site.config, ccache or site.ccache).stdout


def test_takes_the_only_keytab_of_the_folder_and_its_first_principal(
    here: Site,
) -> None:
    """Neither krb5.conf, nor a ccache, nor a hidden file in the folder is a keytab."""
    folder = here.keytab.parent
    here.kdc.write_keytab(here.keytab, here.kdc.add_principal(f"a-{here.name}"))
    (folder / "krb5.conf").write_bytes(here.config.read_bytes())
    (folder / ".hidden").write_bytes(here.keytab.read_bytes())
    (folder / "b.keytab").write_bytes(here.keytab.read_bytes())
    ccache = folder / "krb5cc"
    daemon = here.start(
        **{
            **UNSET,
            "KERBEROS_KEYTAB_DIR": str(folder),
            "KERBEROS_CCACHE": f"FILE:{ccache}",
        }
    )

    failed = failure(daemon)

    assert "keytab_ambiguous" == failed["reason"], failed
    assert "2 keytabs: airflow.keytab, b.keytab" in failed["error"], failed
    assert_tells(daemon, "keytab_ambiguous", ready=False)
    assert 1 == len(
        daemon.find_events(
            "keytab_exposed",
            level="warning",
            folder=str(folder),
            ccache=str(ccache),
        )
    )
    (folder / "b.keytab").unlink()
    assert here.principal == daemon.wait_for_event("ticket_acquired")["principal"], (
        "not the second one"
    )
    assert f"Default principal: {here.principal}" in listing(here, ccache)
    daemon.wait_until_ready()


def test_takes_the_charts_variables_for_settings_that_are_unset(here: Site) -> None:
    """
    The principal is not the first one of the keytab, and has no realm. The first
    krb5.conf is missing.
    """
    keytab = here.keytab.with_name("more")
    here.kdc.write_keytab(keytab, here.kdc.add_principal("HTTP/first"))
    host = here.kdc.add_principal(f"HTTP/{socket.getfqdn()}")
    here.kdc.write_keytab(keytab, host)
    daemon = here.publish(
        **{
            **UNSET,
            "AIRFLOW__KERBEROS__KEYTAB": f"FILE:{keytab}",
            "AIRFLOW__KERBEROS__PRINCIPAL": "HTTP/_HOST",
            "AIRFLOW__KERBEROS__CCACHE": str(here.ccache),
            "AIRFLOW__KERBEROS__REINIT_FREQUENCY": "2",
            "AIRFLOW__KERBEROS__FORWARDABLE": "False",
            "KRB5_CONFIG": f"{here.folder}/missing:{here.config}",
            "KERBEROS_STATUS_PAGE": "false",
        }
    )

    assert f"Default principal: {host}" in listing(here)
    assert "Flags: I" in listing(here)
    daemon.wait_for_event("ticket_acquired", cause="interval")
    assert [404, 404] == [daemon.get(path).status for path in ("/", "/status")]


def test_requests_what_the_settings_say_whatever_krb5_conf_says(here: Site) -> None:
    """Without the setting, a KDC makes a ticket renewable that it has to shorten."""
    here.kdc.kadmin(f"modprinc -maxrenewlife 7d {here.principal}")
    os.chown(here.ccache.parent, -1, GROUP)
    here.configure(
        renew_lifetime="7d", ticket_lifetime="3h", forwardable="true", proxiable="true"
    )
    here.publish().terminate()
    assert "Flags: FPRI" in listing(here)
    assert "refresh_time" not in listing(here)
    daemon = here.publish(
        KERBEROS_FORWARDABLE="false",
        KERBEROS_RENEW_LIFETIME="0",
        KERBEROS_CCACHE_MODE="0660",
        KERBEROS_TICKET_LIFETIME="2d",
    )

    assert "Flags: PI" in listing(here)
    assert ("0660", GROUP) == (here.mode(), here.ccache.stat().st_gid)
    assert 86_400 == daemon.find_events("ticket_acquired")[0]["lifetime_seconds"], (
        "as much as the KDC grants"
    )


def test_a_window_of_0_retries_a_refused_key_with_backoff_until_it_gives_up(
    here: Site,
) -> None:
    here.kdc.kadmin(f"modprinc +requires_preauth {here.principal}")
    make_stale(here)

    daemon = here.start(KERBEROS_LOCKOUT_WINDOW="0", KERBEROS_MAX_FAILURES="3")

    assert 3 == daemon.wait_for_exit().code
    (gave_up,) = daemon.find_events("sidecar_gave_up", reason="failure_limit")
    assert "keytab_stale" in gave_up["error"]
    assert 3 == len(daemon.find_events("cycle_failed"))
    assert 3 <= refusals(here), "libkrb5 may repeat one"


@pytest.mark.parametrize(
    ("consumer", "code", "said"),
    [
        ("0:0", 0, "uid 0 with group 0 can read it"),
        ("50001:GROUP", 0, "can read it"),
        ("50001:50001", 3, "has mode 0640, uid"),
        ("50001:50001", 3, "has mode 0700, uid"),
        ("50000", 2, "'50000' is not UID:GID such as 50000:0"),
    ],
)
def test_check_says_whether_a_consumer_can_read_the_ccache(
    here: Site, consumer: str, code: int, said: str
) -> None:
    if "0700" in said:
        here.ccache.parent.chmod(0o700)
    checked = here.start(
        "check",
        "--consumer",
        consumer.replace("GROUP", str(here.ccache.parent.stat().st_gid)),
    )

    assert code == checked.wait_for_exit().code, checked.log()
    assert said in checked.log(), checked.log()
    assert not here.ccache.exists()
