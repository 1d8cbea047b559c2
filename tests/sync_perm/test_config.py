"""
Finding and parsing the database URL.
"""

import threading
from pathlib import Path

import pytest

from sidecar_runtime.errors import SettingsError, SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sync_perm.config import Address, AirflowConfig, Source, find_source, parse_url
from sync_perm.database import mysql_tls
from tests.support.raising import raised
from tests.support.waiting import wait_until

DATABASE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
CORE = "AIRFLOW__CORE__SQL_ALCHEMY_CONN"
URL = "postgresql://airflow:p%40ss%2Fword@db.example:6543/meta?sslmode=require"


def source(home: Path, text: str = "", **environ: str) -> Source:
    (home / "airflow.cfg").write_text(text)
    return find_source(AirflowConfig({"AIRFLOW_HOME": str(home), **environ}))


def parse(url: str) -> Address:
    return parse_url("TEST", url, "")


def test_reads_the_published_example(tmp_path: Path) -> None:
    found = source(tmp_path, **{CORE: URL})

    address = found.read()

    assert (CORE, "postgresql") == (found.setting, address.dialect)
    url = address.url
    assert ("db.example", 6543, "airflow") == (url.host, url.port, url.username)
    assert ("p@ss/word", "meta") == (url.password, url.database)
    assert {"sslmode": "require"} == url.query


def test_looks_for_the_url_in_airflows_order(tmp_path: Path) -> None:
    places = {DATABASE: "mysql://h/1", f"{DATABASE}_CMD": "echo mysql://h/2"}
    places |= {CORE: "mysql://h/3", f"{CORE}_CMD": "echo mysql://h/4"}
    text = "[database]\nsql_alchemy_conn = mysql://h/5\n[core]\nsql_alchemy_conn = mysql://h/6\n"
    found = []

    while places:
        found.append(source(tmp_path, text, **places).read().url.database)
        places.pop(next(iter(places)))
    found.append(source(tmp_path, text).read().url.database)
    found.append(source(tmp_path, text[text.index("[core]") :]).read().url.database)

    assert ["1", "2", "3", "4", "5", "6"] == found


def test_runs_the_connection_command_at_each_read(tmp_path: Path) -> None:
    words = tmp_path / "words"
    found = source(tmp_path, **{f"{DATABASE}_CMD": f"cat {words}"})
    read = []

    for password in ("old", "new"):
        words.write_text(f"postgresql://u:{password}@h/d\n")
        read.append(found.read().url.password)

    assert ["old", "new"] == read


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("false", "ended with code 1"),
        ("echo s3cret", "printed text that is not a URL"),
        ("/no/such/program s3cret", "cannot be run"),
        ("echo 'unbalanced", "cannot be run"),
    ],
)
def test_reports_a_failed_command_without_its_text(tmp_path: Path, command: str, why: str) -> None:
    error = raised(SidecarError, source(tmp_path, **{f"{CORE}_CMD": command}).read)

    assert "connection_command_failed" == error.reason
    assert why in error.message
    assert "s3cret" not in error.message


def test_a_missing_connection_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"{DATABASE}='' is missing"):
        source(tmp_path)


def test_kills_the_connection_command_when_its_cycle_is_abandoned(tmp_path: Path) -> None:
    fence = Fence()
    started = tmp_path / "started"
    command = f"sh -c 'echo $$ > {started}; sleep 600'"
    one = source(tmp_path, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD=command)

    def end_it() -> None:
        wait_until(lambda: started.exists() and started.read_text(), "started")
        fence.revoke()

    threading.Thread(target=end_it).start()
    with pytest.raises(CycleAbandoned):
        one.read(fence)

    assert not Path(f"/proc/{started.read_text().strip()}").exists()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s3cret", "is not a URL"),
        ("postgresql:/u:s3cret@h/d", "is not a URL"),
        ("mssql+pyodbc://u:s3cret@h/d", "names 'mssql'; supported are postgresql and mysql"),
        ("postgresql://u:s3cret@h", "names no database"),
        ("postgresql://u:p@s3cret@h/d", "write it as %40"),
        ("mysql://u:p@a/s3cret@h/d", "write it as %40"),
        ("sqlite:////opt/s3cret.db", "names 'sqlite'; supported are postgresql and mysql"),
    ],
)
def test_refuses_an_invalid_url_without_quoting_it(url: str, why: str) -> None:
    error = raised(SettingsError, parse, url)

    assert why in str(error)
    assert "s3cret" not in str(error)


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgresql+psycopg2://u:p@h/d", "postgresql+psycopg2"),
        ("postgresql+psycopg://u:p@h/d", "postgresql+psycopg2"),
        ("postgres://u:p@[fd00::1]:5432/d", "postgresql+psycopg2"),
        ("postgresql://u:p@/d?host=/run/postgresql", "postgresql+psycopg2"),
        ("mysql+mysqldb://u@h:3307/d", "mysql+pymysql"),
        ("mariadb://u@h/d", "mysql+pymysql"),
    ],
)
def test_uses_our_own_driver_and_hands_the_url_on(url: str, driver: str) -> None:
    found = parse(url)

    assert driver == found.url.drivername
    assert not found.text.startswith("postgres:")  # SQLAlchemy no longer accepts it
    assert found.text.removeprefix("postgresql") == url.removeprefix("postgres").removeprefix("ql")


CA = {"ca": "/ca.pem", "check_hostname": False, "verify_mode": True}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ssl_mode": "REQUIRED"}, {"check_hostname": False, "verify_mode": False}),
        ({"ssl_ca": "/ca.pem"}, CA),
        ({"ssl": {"ca": "/ca.pem"}}, CA),
        ({"ssl_ca": "/ca.pem", "ssl_mode": "VERIFY_CA"}, CA),
        ({"ssl_ca": "/ca.pem", "ssl_mode": "VERIFY_IDENTITY"}, {**CA, "check_hostname": True}),
        ({"ssl_ca": "/ca.pem", "ssl_check_hostname": "true"}, {**CA, "check_hostname": True}),
        ({"ssl_ca": "/ca.pem", "ssl_mode": "REQUIRED"}, {**CA, "verify_mode": False}),
    ],
)
def test_tls_of_mysql_is_as_strict_as_airflows(
    given: dict[str, object], expected: dict[str, object]
) -> None:
    assert {"ssl": expected} == mysql_tls(given)


def test_mysql_without_tls_options_uses_tls_where_offered() -> None:
    assert {} == mysql_tls({})
    assert {"ssl_disabled": True} == mysql_tls({"ssl_mode": "DISABLED", "ssl_ca": "/ca.pem"})


def test_pymysql_with_an_authority_also_verifies_the_host() -> None:
    found = parse("mysql+pymysql://u@h/d?ssl_ca=/ca.pem")

    assert {"ssl": {**CA, "check_hostname": True}} == mysql_tls(found.url.query)


def test_never_shows_the_password() -> None:
    address = parse(URL)

    for shown in (str(address), repr(address), repr(Source("X", URL, False, ""))):
        assert "ss%2Fword" not in shown
        assert "p@ss/word" not in shown


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
        (URL, "redis://:other@redis:6379/0 refused", "redis://:***@redis:6379/0 refused"),
        (URL, "'sentinel://u:p/w@a;sentinel://u:p@w@b'", "'sentinel://u:***@b'"),
        (URL, "see https://host:8080/path", "see https://host:8080/path"),
        (URL, "mail to a@b about http://host", "mail to a@b about http://host"),
    ],
    ids=["each form", "as in the URL", "like a public name", "broker", "several", "port", "mail"],
)
def test_hides_the_password_and_those_in_all_urls(url: str, text: str, shown: str) -> None:
    assert shown == parse(url).redact(text)


def test_a_variable_takes_precedence_over_airflow_cfg(tmp_path: Path) -> None:
    text = "[core]\nauth_manager = of the file\nplugins_folder = /p\n"
    (tmp_path / "airflow.cfg").write_text(text)
    environ = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__AUTH_MANAGER": "of the environment"}

    found = AirflowConfig(environ)

    assert "of the environment" == found.value("core", "auth_manager")
    assert "/p" == found.value("core", "plugins_folder")
    assert "" == found.value("core", "dags_folder")


@pytest.mark.parametrize(
    ("written", "read"),
    [("${PLACE}/plugins", "/somewhere/plugins"), ("mysql://u:p%%40@h/d", "mysql://u:p%40@h/d")],
)
def test_expands_variables_and_unescapes_percent_signs_as_airflow_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, read: str
) -> None:
    monkeypatch.setenv("PLACE", "/somewhere")
    file = tmp_path / "other.cfg"
    file.write_text(f"[core]\nplugins_folder = {written}\n")

    assert read == AirflowConfig({"AIRFLOW_CONFIG": str(file)}).value("core", "plugins_folder")


def test_reports_an_invalid_file_without_its_content(tmp_path: Path) -> None:
    error = raised(SettingsError, source, tmp_path, "no section = s3cret\n")

    assert "airflow.cfg" in str(error)
    assert "s3cret" not in str(error)
