"""
Finding and parsing the database URL.
"""

from pathlib import Path
from unittest.mock import Mock

import pytest

from sidecar_runtime.errors import SettingsError
from sync_perm.airflow_config import (
    Address,
    AirflowConfig,
    Source,
    find_source,
    parse_url,
)
from sync_perm.database import mysql_tls
from tests import Facts, Texts
from tests.support.raising import raised

DATABASE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
URL = "postgresql://airflow:p%40ss%2Fword@db.example:6543/meta?sslmode=require"


def parse(url: str) -> Address:
    return parse_url("TEST", url)


def test_reports_a_missing_url(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"{DATABASE}='' is missing"):
        find_source(AirflowConfig({"AIRFLOW_HOME": str(tmp_path)}), "", Mock())


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        ("a%%b", {}, "a%b"),
        ("$HOME/x", {}, "/home/x"),
        ("x", {"AIRFLOW__CORE__PLUGINS_FOLDER": "~/$NAME"}, "/home/~"),
        ("x", {"AIRFLOW__CORE__PLUGINS_FOLDER": ""}, ""),
        ("x", {"AIRFLOW_CONFIG": ""}, ""),
    ],
)
def test_a_variable_comes_before_airflow_cfg_and_each_is_expanded_until_nothing_is_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    given: Texts,
    expected: str,
) -> None:
    monkeypatch.setenv("HOME", "/home")
    monkeypatch.setenv("NAME", "$OTHER")
    monkeypatch.setenv("OTHER", "~")
    (tmp_path / "airflow.cfg").write_text(f"[core]\nplugins_folder = {text}\n")

    config = AirflowConfig({"AIRFLOW_HOME": str(tmp_path), **given})

    assert expected == config.value("core", "plugins_folder")


@pytest.mark.parametrize(
    "url",
    [
        "s3cret",
        "postgresql:/u:s3cret@h/d",
        "mssql+pyodbc://u:s3cret@h/d",
        "postgresql://u:s3cret@h",
        "mysql://u:s3cret@h/d?ssl=s3cret",
        "postgresql://u:p@s3cret@h/d",
        "sqlite:////opt/s3cret.db",
    ],
)
def test_refuses_an_invalid_url_without_quoting_it(url: str) -> None:
    error = raised(SettingsError, parse, url)

    assert "TEST='***' is not a URL such as postgresql://" in str(error)
    assert "s3cret" not in str(error)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg2://u:p@h/d", "postgresql://h/d"),
        ("postgres://u:p@[fd00::1]:5432/d", "postgresql://fd00::1:5432/d"),
        ("postgresql://u:p@/d?host=/run/postgresql", "postgresql:///run/postgresql/d"),
        ("mysql+mysqldb://u@h:3307/d", "mysql://h:3307/d"),
        ("mariadb://u@h/d", "mysql://h/d"),
    ],
)
def test_each_spelling_of_a_url_names_its_database(url: str, shown: str) -> None:
    assert shown == str(parse(url))


CA = {"ca": "/ca.pem", "check_hostname": False, "verify_mode": True}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ssl_mode": "REQUIRED"}, {"check_hostname": False, "verify_mode": False}),
        ({"ssl": True}, {"check_hostname": False, "verify_mode": False}),
        ({"ssl_ca": "/ca.pem"}, CA),
        (
            {"ssl_ca": "/ca.pem", "ssl_mode": "VERIFY_IDENTITY"},
            {**CA, "check_hostname": True},
        ),
        (
            {"ssl_ca": "/ca.pem", "ssl_check_hostname": "true"},
            {**CA, "check_hostname": True},
        ),
        ({"ssl_ca": "/ca.pem", "ssl_mode": "REQUIRED"}, {**CA, "verify_mode": False}),
    ],
)
def test_tls_of_mysql_is_as_strict_as_airflows(given: Facts, expected: Facts) -> None:
    assert {"ssl": expected} == mysql_tls(given)


def test_mysql_without_tls_options_uses_tls_where_offered_and_pymysql_verifies_the_host() -> (
    None
):
    assert {} == mysql_tls({})
    assert {"ssl_disabled": True} == mysql_tls(
        {"ssl_mode": "DISABLED", "ssl_ca": "/ca.pem"}
    )
    found = parse("mysql+pymysql://u@h/d?ssl_ca=/ca.pem")
    assert {"ssl": {**CA, "check_hostname": True}} == mysql_tls(found.arguments)


@pytest.mark.parametrize(
    ("url", "text", "shown"),
    [
        (
            URL,
            f"{URL} | p@ss/word | p%40ss%2Fword | hello",
            "postgresql://airflow:***@db.example:6543/meta?sslmode=require | *** | *** | hello",
        ),
        (
            "postgresql://u:p%2fss!@h/d",
            "p%2fss! of postgresql://u:p@h",
            "*** of postgresql://u:***@h",
        ),
        (
            "postgresql://airflow:airflow@h/d",
            "user airflow at postgresql://airflow:airflow@h/d",
            "user airflow at postgresql://airflow:***@h/d",
        ),
        (
            URL,
            "redis://:other@redis:6379/0 refused",
            "redis://:***@redis:6379/0 refused",
        ),
        (URL, "'sentinel://u:p/w@a;sentinel://u:p@w@b'", "'sentinel://u:***@b'"),
        (URL, "mail to a@b about http://host", "mail to a@b about http://host"),
    ],
    ids=[
        "each form",
        "as in the URL",
        "like a public name",
        "broker",
        "several",
        "mail",
    ],
)
def test_hides_the_password_and_those_in_all_urls(
    url: str, text: str, shown: str
) -> None:
    address = parse(url)

    assert shown == address.redact(text)
    assert str(address.arguments["password"]) not in repr(address) + repr(
        Source("X", address, ask=lambda _: {})
    )


def test_reports_an_invalid_file_without_its_content(tmp_path: Path) -> None:
    (tmp_path / "airflow.cfg").write_text("no section = s3cret\n")
    error = raised(SettingsError, AirflowConfig, {"AIRFLOW_HOME": str(tmp_path)})

    assert "airflow.cfg" in str(error)
    assert "s3cret" not in str(error)
