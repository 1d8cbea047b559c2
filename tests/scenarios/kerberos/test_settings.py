"""
Settings that cannot be meant end the process with code 2 and one line each.
"""

from tests.support.site import Site


def test_wrong_settings_are_named(here: Site) -> None:
    wrong = {
        "KERBEROS_CCACHE": "KCM:",
        "KERBEROS_KEYTAB": "airflow.keytab",
        "KERBEROS_CCACHE_MODE": "640x",
        "INTERVAL": "soon",
        "KERBEROS_KEYTBA": "/x",
    }
    daemon = here.start(**wrong)

    ended = daemon.wait_for_exit()

    assert 2 == ended.code
    rejected = daemon.find_events("setting_rejected")
    assert sorted(wrong) == sorted(event["setting"] for event in rejected)
    assert all(event["problem"] for event in rejected)
    assert [] == daemon.stray_lines
    assert not here.ccache.exists()


def test_help_and_version(here: Site) -> None:
    for argument, text in (("--help", "KERBEROS"), ("--version", "0.2.0")):
        daemon = here.start(argument)
        assert 0 == daemon.wait_for_exit().code
        assert text in "\n".join(daemon.stray_lines)
