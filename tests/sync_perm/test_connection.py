"""
Finding and parsing the database URL.
"""

import threading
import tracemalloc
from pathlib import Path

import pytest

from sidecar_runtime.errors import SettingsError, SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sync_perm.airflow_config import AirflowConfig
from sync_perm.database import postgresql
from sync_perm.database.connection import Address, Source, find_source, parse_url
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
    assert ("db.example", 6543, "airflow") == (address.host, address.port, address.user)
    assert ("p@ss/word", "meta") == (address.password, address.database)
    assert {"sslmode": "require"} == address.options


def test_looks_for_the_url_in_airflows_order(tmp_path: Path) -> None:
    places = {DATABASE: "sqlite:////1", f"{DATABASE}_CMD": "echo sqlite:////2"}
    places |= {CORE: "sqlite:////3", f"{CORE}_CMD": "echo sqlite:////4"}
    text = "[database]\nsql_alchemy_conn = sqlite:////5\n[core]\nsql_alchemy_conn = sqlite:////6\n"
    found = []

    while places:
        found.append(source(tmp_path, text, **places).read().database)
        places.pop(next(iter(places)))
    found.append(source(tmp_path, text).read().database)
    found.append(source(tmp_path, text[text.index("[core]") :]).read().database)

    assert ["/1", "/2", "/3", "/4", "/5", "/6"] == found


def test_runs_the_connection_command_at_each_read(tmp_path: Path) -> None:
    words = tmp_path / "words"
    found = source(tmp_path, **{f"{DATABASE}_CMD": f"cat {words}"})
    read = []

    for password in ("old", "new"):
        words.write_text(f"postgresql://u:{password}@h/d\n")
        read.append(found.read().password)

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


def test_keeps_little_of_a_commands_endless_output(tmp_path: Path) -> None:
    last = "500000"
    chatty = source(tmp_path, **{f"{CORE}_CMD": f"seq {last}"})
    tracemalloc.start()
    try:
        error = raised(SidecarError, chatty.read)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert "printed text that is not a URL" in error.message
    assert peak_bytes < int(last) * len(last) / 2


def test_a_missing_connection_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"{DATABASE}='' is missing"):
        source(tmp_path)


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("", {f"{DATABASE}_SECRET": "path"}),
        ("", {f"{CORE}_SECRET": "path"}),
        ("[database]\nsql_alchemy_conn_secret = path\n", {}),
    ],
)
def test_refuses_a_secrets_backend(tmp_path: Path, text: str, environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="needs Airflow's secrets backend"):
        source(tmp_path, text, **environ)


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
        ("mssql+pyodbc://u:s3cret@h/d", "names 'mssql'; supported are postgresql, mysql, sqlite"),
        ("postgresql://u:s3cret@h", "names no database"),
        ("postgresql://u:p@s3cret@h/d", "write it as %40"),
        ("mysql://u:p@a/s3cret@h/d", "write it as %40"),
        ("postgresql://u:s3cret@h:99999/d", "has a port that is not"),
        ("sqlite:///s3cret.db", "must have an absolute path"),
        ("sqlite://", "must have an absolute path"),
    ],
)
def test_refuses_an_invalid_url_without_quoting_it(url: str, why: str) -> None:
    error = raised(SettingsError, parse, url)

    assert why in str(error)
    assert "s3cret" not in str(error)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+psycopg2://u:p@h/d", ("postgresql", "h", None, "d")),
        ("postgres://u:p@[fd00::1]:5432/d", ("postgresql", "fd00::1", 5432, "d")),
        ("postgresql://u:p@/d?host=/run/postgresql", ("postgresql", "", None, "d")),
        ("mysql+mysqldb://u@h:3307/d", ("mysql", "h", 3307, "d")),
        ("mariadb://u@h/d", ("mysql", "h", None, "d")),
        ("sqlite:////opt/airflow/airflow.db", ("sqlite", "", None, "/opt/airflow/airflow.db")),
    ],
)
def test_parses_urls_as_sqlalchemy_does(url: str, expected: tuple[object, ...]) -> None:
    found = parse(url)

    assert expected == (found.dialect, found.host, found.port, found.database)
    assert not found.url.startswith("postgres:")  # SQLAlchemy no longer accepts it
    assert found.url.removeprefix("postgresql") == url.removeprefix("postgres").removeprefix("ql")


@pytest.mark.parametrize(
    ("query", "hosts", "ports"),
    [
        ("host=a:1&host=b:2", "a,b", "1,2"),
        ("host=a&host=b:2", "a,b", ",2"),
        ("host=a,b&port=1,2", "a,b", "1,2"),
        ("host=/run/postgresql", "/run/postgresql", None),
        ("host=fd00::1", "fd00::1", None),
    ],
)
def test_passes_several_hosts_like_sqlalchemy(query: str, hosts: str, ports: str | None) -> None:
    given = postgresql.parameters(parse(f"postgresql://u:p@/d?{query}&sslmode=require"))

    assert (hosts, ports, "require") == (given["host"], given.get("port"), given["sslmode"])


def test_never_shows_the_password() -> None:
    address = parse(URL)

    for shown in (str(address), repr(address), repr(Source("X", URL, False, ""))):
        assert "ss%2Fword" not in shown
        assert "p@ss/word" not in shown


@pytest.mark.parametrize(
    ("url", "text", "redacted"),
    [
        (
            URL,
            f"{URL} | p@ss/word | p%40ss%2Fword | hello",
            "postgresql://airflow:***@db.example:6543/meta?sslmode=require | *** | *** | hello",
        ),
        (
            "postgresql://u:p%2fss!@h/d",
            "p%2fss! of postgresql://u:p%2fss!@h/d",
            "*** of postgresql://u:***@h/d",
        ),
        ("mysql://u:p%20ss%2F@h/d", "p ss%2F of u:p ss%2F@h", "*** of u:***@h"),
        (
            "postgresql://airflow:airflow@h/d",
            "user airflow at postgresql://airflow:airflow@h/d",
            "user airflow at postgresql://airflow:***@h/d",
        ),
    ],
    ids=[
        "in every form",
        "as the URL has it",
        "as SQLAlchemy writes it",
        "like a public name: in URLs only",
    ],
)
def test_redacts_the_password_in_text(url: str, text: str, redacted: str) -> None:
    assert redacted == parse(url).redact(text)
