"""
Settings from existing deployments, from the chart, and with mistakes.
"""

import json
from pathlib import Path

import pytest

from kerberos_sidecar.settings import (
    Settings,
    changed,
    load_settings,
)
from sidecar_runtime.errors import Problem, SettingsError
from tests import Facts
from tests.support.raising import raised

EXAMPLE = {"INTERVAL": "3600", "KRB5_CONFIG": "/etc/krb5.conf"}
FIRST = {"principal": "a@R", "ccache": "/c"}
CHART = {
    "AIRFLOW__KERBEROS__KEYTAB": "/etc/airflow.keytab",
    "AIRFLOW__KERBEROS__PRINCIPAL": "airflow@R",
    "AIRFLOW__KERBEROS__CCACHE": "/var/kerberos-ccache/cache",
    "AIRFLOW__KERBEROS__REINIT_FREQUENCY": "1800",
    "AIRFLOW__KERBEROS__FORWARDABLE": "False",
}


def read(**environ: str) -> Settings:
    return load_settings(EXAMPLE | environ)[0]


def problems_of(**environ: str) -> list[Problem]:
    return raised(SettingsError, load_settings, EXAMPLE | environ).problems


def several(*items: Facts) -> str:
    return json.dumps(items)


def test_shows_settings_and_errors_under_the_names_that_were_used() -> None:
    given = CHART | {"KERBEROS_CCACHE": "/ours", "KERBEROS_PRINCIPAL": " "}
    given["AIRFLOW__KERBEROS__FORWARDABLE"] = "true"  # the default

    assert {
        "AIRFLOW__KERBEROS__REINIT_FREQUENCY": "1800",
        "AIRFLOW__KERBEROS__KEYTAB": "/etc/airflow.keytab",
        "AIRFLOW__KERBEROS__PRINCIPAL": "airflow@R",
        "KERBEROS_CCACHE": "/ours",
    } == changed(given)
    (problem,) = problems_of(AIRFLOW__KERBEROS__CCACHE="KCM:")
    assert ("AIRFLOW__KERBEROS__CCACHE", "KCM:") == (problem.setting, problem.value)
    assert read() == read(
        **dict.fromkeys(
            ("KRB5CCNAME", "KRB5_KTNAME", "KRB5_CLIENT_KTNAME", "KRB5_TRACE"),
            "/of/consumers",
        )
    )


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        (
            "KERBEROS_PRINCIPAL",
            "a@b@c",
            "is not a principal such as airflow@EXAMPLE.COM",
        ),
        ("KERBEROS_CCACHE", "FILE:ccache", "absolute path"),
        ("KERBEROS_CCACHE", "dir:/x", "is of the kind DIR; set the path"),
        ("KERBEROS_CCACHE_MODE", "416", "is not an octal mode"),
        ("KERBEROS_CCACHE_MODE", "0666", "grants more than 0664"),
        ("KERBEROS_TICKET_LIFETIME", "0", "from 1s to"),
        ("KERBEROS_RENEW_LIFETIME", "366d", "from 0s to 365d"),
        *(
            ("KERBEROS_PRINCIPALS", text, problem)
            for text, problem in (
                ("a@R", "is not JSON"),
                ("[]", "is not a JSON list of objects"),
                (several(FIRST | {"cache": ""}), "knows only principal, key"),
                (
                    several(FIRST | {"ccache": 1}),
                    "item 1: ccache 1 is not a JSON string",
                ),
                (
                    several(FIRST | {"principal": "a b"}),
                    "item 1: principal 'a b' is not a",
                ),
                (several(FIRST | {"principal": "a\udcff"}), r"'a\udcff' is not UTF-8"),
                (several(FIRST | {"mode": "0666"}), "'0666' grants more"),
                (
                    several(FIRST, {"principal": "b@R"}),
                    "item 2: needs principal and ccache",
                ),
                (
                    several(FIRST, FIRST | {"ccache": "/x/../c"}),
                    "of more than one principal",
                ),
            )
        ),
    ],
)
def test_reports_an_invalid_value_with_its_setting(
    name: str, value: str, what: str
) -> None:
    (found,) = problems_of(**{"KERBEROS_KEYTAB": "/etc/keytab/k", name: value})

    assert name == found.setting
    assert what in found.problem


def test_two_paths_that_lead_to_one_file_are_the_same_but_a_replaced_ccache_is_accepted(
    tmp_path: Path,
) -> None:
    """A consumer may have put a link to the keytab at the ccache's path."""
    (tmp_path / "link").symlink_to(tmp_path)
    paths = [f"{tmp_path}/c", f"{tmp_path}/link/c"]
    (found,) = problems_of(
        KERBEROS_PRINCIPALS=several(
            *({"principal": "a@R", "ccache": path} for path in paths)
        )
    )

    assert (paths[0], "is the ccache of more than one principal") == (
        found.value,
        found.problem,
    )
    (tmp_path / "c").symlink_to(tmp_path / "k")
    read(KERBEROS_CCACHE=paths[0], KERBEROS_KEYTAB=f"{tmp_path}/k")


def test_listed_principals_inherit_omitted_values_but_no_settings_for_one_are_beside_them() -> (
    None
):
    settings = read(
        KERBEROS_PRINCIPALS=several(
            FIRST, {"principal": "b@R", "ccache": "FILE:/cc/b", "keytab": "/k/b"}
        ),
        KERBEROS_KEYTAB="/k/all",
    )

    assert ("/k/all, /k/b", "/c, /cc/b") == (settings.source, settings.target)
    one = {"KERBEROS_PRINCIPAL": "a@R", "KERBEROS_CCACHE": "/d"}
    assert [*one] == [
        problem.setting
        for problem in problems_of(**one, KERBEROS_PRINCIPALS=several(FIRST))
    ]
