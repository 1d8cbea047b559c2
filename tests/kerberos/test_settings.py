"""
Settings from existing deployments, from the chart, and with mistakes.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kerberos_sidecar.principal import parse_principal
from kerberos_sidecar.settings import (
    CHART_NAMES,
    PREFIX,
    Entry,
    Settings,
    ccache,
    changed,
    load_settings,
)
from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.settings import names_of
from tests.support.kerberos.formats import entry, keytab
from tests.support.raising import raised

EXAMPLE = {"INTERVAL": "3600", "KRB5_CONFIG": "/etc/krb5.conf"}
A, B = parse_principal("a@R"), parse_principal("b@R")


def read(**environ: str) -> Settings:
    return load_settings(EXAMPLE | environ)[0]


def problems_of(**environ: str) -> list[Problem]:
    return raised(SettingsError, load_settings, EXAMPLE | environ).problems


def problem_of(**environ: str) -> Problem:
    (problem,) = problems_of(**environ)
    return problem


def several(*items: dict[str, Any]) -> str:
    return json.dumps(items)


def test_accepts_the_published_example_and_an_empty_environment() -> None:
    settings, unknown = load_settings(EXAMPLE)

    assert (3600.0, "/etc/krb5.conf") == (settings.interval_seconds, settings.krb5_config)
    assert "/etc/keytab" == settings.keytab_dir
    assert (Entry(None, "/etc/keytab/ccache", None, 0o640),) == settings.entries
    assert ("/etc/keytab", "/etc/keytab/ccache") == (settings.source, settings.target)
    assert [] == unknown
    settings, _ = load_settings({})  # every setting has a default
    assert (3600.0, None) == (settings.interval_seconds, settings.krb5_config)
    assert (("", 9813), 60.0) == (settings.http_bind, settings.timeout_seconds)


def test_accepts_the_variables_of_the_charts_kerberos_container() -> None:
    before = dict(os.environ)
    settings = load_settings(
        {
            "AIRFLOW__KERBEROS__KEYTAB": "/etc/airflow.keytab",
            "AIRFLOW__KERBEROS__PRINCIPAL": "airflow@EXAMPLE.COM",
            "AIRFLOW__KERBEROS__CCACHE": "/var/kerberos-ccache/cache",
            "AIRFLOW__KERBEROS__REINIT_FREQUENCY": "1800",
            "AIRFLOW__KERBEROS__FORWARDABLE": "False",
        }
    )[0]

    wanted = parse_principal("airflow@EXAMPLE.COM")
    assert (Entry(wanted, "/var/kerberos-ccache/cache", "/etc/airflow.keytab", 0o640),) == (
        settings.entries
    )
    assert (1800.0, False) == (settings.interval_seconds, settings.forwardable)
    assert before == dict(os.environ)


def test_own_variables_take_precedence_over_the_charts() -> None:
    settings = read(AIRFLOW__KERBEROS__CCACHE="/theirs", KERBEROS_CCACHE="/ours/ccache")

    assert "/ours/ccache" == settings.ccache
    assert 3600.0 == read(AIRFLOW__KERBEROS__REINIT_FREQUENCY="60").interval_seconds


def test_shows_changed_settings_under_the_names_that_were_used() -> None:
    given = {
        "AIRFLOW__KERBEROS__KEYTAB": "/k",
        "AIRFLOW__KERBEROS__REINIT_FREQUENCY": "600",
        "AIRFLOW__KERBEROS__FORWARDABLE": "true",  # the default
        "AIRFLOW__KERBEROS__CCACHE": "/theirs",
        "KERBEROS_CCACHE": "/ours",
        "KERBEROS_PRINCIPAL": " ",
        "AIRFLOW__KERBEROS__PRINCIPAL": "airflow",
    }

    assert {
        "AIRFLOW__KERBEROS__REINIT_FREQUENCY": "600",
        "AIRFLOW__KERBEROS__KEYTAB": "/k",
        "AIRFLOW__KERBEROS__PRINCIPAL": "airflow",
        "KERBEROS_CCACHE": "/ours",
    } == changed(given)


def test_an_error_names_the_variable_that_was_set() -> None:
    problem = problem_of(AIRFLOW__KERBEROS__CCACHE="KCM:")

    assert ("AIRFLOW__KERBEROS__CCACHE", "KCM:") == (problem.setting, problem.value)


def test_accepts_a_ticket_lifetime_of_a_year() -> None:
    settings = read(KERBEROS_TICKET_LIFETIME="365d", KERBEROS_RENEW_LIFETIME="365d")

    assert settings.ticket_lifetime_seconds == settings.renew_lifetime_seconds == 365 * 86400


@pytest.mark.parametrize("text", ["/run/cc", "FILE:/run/cc", "file:/run//cc", "/run/./cc"])
def test_accepts_a_ccache_path_with_or_without_the_file_prefix(text: str) -> None:
    assert "/run/cc" == ccache(text)


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("INTERVAL", "0.5", "is not between 1s and"),
        ("KERBEROS_KEYTAB", "airflow.keytab", "is not an absolute path"),
        ("KERBEROS_PRINCIPAL", "a@b@c", "is not a principal such as airflow@EXAMPLE.COM"),
        ("KERBEROS_CCACHE", "/etc/keytab/k", "is also the keytab"),
        *(
            ("KERBEROS_CCACHE", f"{kind}:/x", f"is a {kind.upper()} ccache, which other cont")
            for kind in ("DIR", "KCM", "KEYRING", "MEMORY", "API", "dir")
        ),
        ("KERBEROS_CCACHE_MODE", "416", "is not an octal mode"),
        ("KERBEROS_CCACHE_MODE", "0666", "grants more than 0664"),
        ("KERBEROS_TICKET_LIFETIME", "0", "is not between 1s and"),
        ("KERBEROS_TICKET_LIFETIME", "366d", "is not between 1s and 365d"),
        ("KERBEROS_RENEW_LIFETIME", "366d", "is not between 0s and 365d"),
        ("KERBEROS_FORWARDABLE", "maybe", "is not true or false"),
    ],
)
def test_reports_an_invalid_value_with_its_setting(name: str, value: str, what: str) -> None:
    found = problem_of(**{"KERBEROS_KEYTAB": "/etc/keytab/k", name: value})

    assert (name, value) == (found.setting, found.value)
    assert what in found.problem


@pytest.mark.parametrize("kind", ["large", "pipe", "folder", "link to the keytab", "keytab"])
def test_accepts_a_ccache_path_whose_file_a_consumer_replaced(tmp_path: Path, kind: str) -> None:
    path, keytab_path = tmp_path / "cc", tmp_path / "k"
    keytab_path.write_bytes(keytab(entry()))
    make: dict[str, Callable[[], object]] = {
        "large": lambda: (path.write_bytes(keytab(entry())), os.truncate(path, 1 << 30)),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "link to the keytab": lambda: path.symlink_to(keytab_path),
        "keytab": lambda: path.write_bytes(keytab(entry())),
    }
    make[kind]()

    read(KERBEROS_CCACHE=str(path), KERBEROS_KEYTAB=str(keytab_path))


def test_a_principal_can_have_two_keytabs() -> None:
    """Only when they are read is it known whether both have the same keys."""
    text = several(
        {"principal": "a@R", "ccache": "/c"}, {"principal": "a@R", "ccache": "/d", "keytab": "/k"}
    )

    assert [None, "/k"] == [entry.keytab for entry in read(KERBEROS_PRINCIPALS=text).entries]


def test_principals_cannot_share_a_ccache_but_one_can_have_two() -> None:
    text = several({"principal": "a@R", "ccache": "/c"}, {"principal": "b@R", "ccache": "/x/../c"})

    found = problem_of(KERBEROS_PRINCIPALS=text)

    assert ("/c", "is the ccache of more than one principal") == (found.value, found.problem)
    text = several({"principal": "a@R", "ccache": "/c"}, {"principal": "a@R", "ccache": "/d"})
    assert 2 == len(read(KERBEROS_PRINCIPALS=text).entries)


def test_two_paths_that_lead_to_one_ccache_are_the_same_ccache(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    paths = [f"{tmp_path}/c", f"{tmp_path}/link/c"]
    text = several(*({"principal": "a@R", "ccache": path} for path in paths))

    found = problems_of(KERBEROS_PRINCIPALS=text)

    assert [(paths[0], "is the ccache of more than one principal")] == [
        (problem.value, problem.problem) for problem in found
    ]


def test_a_misspelled_setting_is_an_error_but_a_service_variable_is_not() -> None:
    assert "did you mean KERBEROS_CCACHE?" in problem_of(KERBEROS_CACHE="/c").problem
    read(KERBEROS_PORT="tcp://10.0.0.1:88", KERBEROS_SERVICE_HOST="10.0.0.1")


@pytest.mark.parametrize("text", ["ccache", "FILE:ccache", "/", "FILE:"])
def test_refuses_a_relative_ccache_path_and_the_root_folder(text: str) -> None:
    with pytest.raises(ValueError, match=r"absolute path|root of the file system"):
        ccache(text)


def test_listed_principals_inherit_omitted_values_from_the_settings() -> None:
    settings = read(
        KERBEROS_PRINCIPALS=several(
            {"principal": "a@R", "ccache": "/cc/a"},
            {"principal": "b@R", "ccache": "FILE:/cc/b", "keytab": "/k/b", "mode": "0600"},
        ),
        KERBEROS_KEYTAB="/k/all",
        KERBEROS_CCACHE_MODE="0660",
    )

    expected = (Entry(A, "/cc/a", "/k/all", 0o660), Entry(B, "/cc/b", "/k/b", 0o600))
    assert expected == settings.entries
    assert ("/k/all, /k/b", "/cc/a, /cc/b") == (settings.source, settings.target)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a@R", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("{}", "is not a JSON list"),
        ("[]", "is not a JSON list of objects"),
        ("[1]", "is not a JSON list of objects"),
        (several({"principal": "a@R"}), "item 1: needs principal and ccache"),
        (several({}), "item 1: needs principal and ccache"),
        (several({"principal": "a@R", "ccache": "/c", "cache": ""}), "knows only principal, key"),
        (several({"principal": "a@R", "ccache": 1}), "item 1: ccache 1 is not a JSON string"),
        (several({"principal": "a b", "ccache": "/c"}), "item 1: principal 'a b' is not a"),
        (several({"principal": "a@R", "ccache": "/c\ud800"}), r"item 1: ccache '/c\ud800' is not"),
        (several({"principal": "a\udcff@R", "ccache": "/c"}), r"'a\udcff@R' is not UTF-8"),
        (several({"principal": "a@R", "ccache": "DIR:/c"}), "item 1: ccache 'DIR:/c' is a DIR"),
        (several({"principal": "a@R", "ccache": "/c", "mode": "420"}), "item 1: mode '420' is"),
        (several({"principal": "a@R", "ccache": "/c", "mode": "0666"}), "'0666' grants more"),
        (
            several({"principal": "a@R", "ccache": "/c"}, {"principal": "b@R"}),
            "item 2: needs principal and ccache",
        ),
    ],
)
def test_reports_each_mistake_in_the_list_of_principals(text: str, problem: str) -> None:
    found = problem_of(KERBEROS_PRINCIPALS=text)

    assert "KERBEROS_PRINCIPALS" == found.setting
    assert problem in found.problem


def test_refuses_settings_for_one_principal_beside_a_list_of_principals() -> None:
    text = several({"principal": "a@R", "ccache": "/c"})

    found = problems_of(KERBEROS_PRINCIPALS=text, KERBEROS_PRINCIPAL="a@R", KERBEROS_CCACHE="/d")

    assert ["KERBEROS_PRINCIPAL", "KERBEROS_CCACHE"] == [problem.setting for problem in found]


def test_accepts_the_charts_variables_beside_a_list_of_principals() -> None:
    text = several({"principal": "a@R", "ccache": "/c"})

    settings = read(
        KERBEROS_PRINCIPALS=text,
        AIRFLOW__KERBEROS__PRINCIPAL="airflow@R",
        AIRFLOW__KERBEROS__CCACHE="/d",
        AIRFLOW__KERBEROS__KEYTAB="/k",
    )

    assert (Entry(A, "/c", "/k", 0o640),) == settings.entries


def test_refuses_the_keytab_of_another_principal_as_a_ccache(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    text = several(
        {"principal": "a@R", "ccache": "/c", "keytab": f"{tmp_path}/k"},
        {"principal": "b@R", "ccache": f"{tmp_path}/link/k"},
    )

    assert "is also the keytab" == problem_of(KERBEROS_PRINCIPALS=text).problem


def test_each_of_the_charts_names_stands_for_a_setting() -> None:
    assert {*CHART_NAMES.values()} <= names_of(Settings, PREFIX)
