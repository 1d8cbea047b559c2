"""
Our reading of Airflow's configuration beside Airflow's own, in all pairs of ways.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sidecar_runtime.errors import SettingsError
from sync_perm.config import AirflowConfig, Source, find_source
from tests.scenarios.sync_perm.conftest import SUPPORTED, StartSyncPerm, on_airflow
from tests.support.airflow.databases import PASSWORD, Database, Postgres
from tests.support.airflow.installed import WITHOUT_KUBERNETES, Airflow
from tests.support.airflow.permissions import add_role, contents, grants_on
from tests.support.airflow.sync_perm import run_command

ASK = Path(__file__).with_name("ask_airflow.py")
CONN = "sql_alchemy_conn"
ENDINGS = ("", "_cmd", "_secret")
BACKEND = """
from airflow.secrets import BaseSecretsBackend

class Ours(BaseSecretsBackend):
    def get_config(self, key):
        return None if key == "unknown" else key
"""
IN_ENVIRONMENT = {"AIRFLOW__SECRETS__BACKEND": "ours.Ours"}
IN_FILE = "[secrets]\nbackend = ours.Ours\n"


class Way(NamedTuple):
    """One place where an option can be set."""

    place: str
    section: str
    key: str

    @property
    def url(self) -> str:
        """What this place, and no other, says."""
        return f"mysql://u:p%40@{self.place}/{self.section}_{self.key}"

    def given(self, text: str | None = None) -> tuple[dict[str, str], str]:
        """Return the variable or the lines of airflow.cfg that say it."""
        said = f"echo -n {self.url}" if self.key.endswith("_cmd") else self.url
        said = said if text is None else text
        if self.place == "environment":
            name = f"AIRFLOW__{self.section}__{self.key}".upper()
            return {name: said}, ""
        return {}, f"[{self.section}]\n{self.key} = {said.replace('%', '%%')}\n"


WAYS = [
    Way(place, section, CONN + ending)
    for place in ("environment", "file")
    for section in ("database", "core")
    for ending in ENDINGS
]


class Case(NamedTuple):
    """An environment and an airflow.cfg."""

    environ: Mapping[str, str]
    file: str


def case(*given: tuple[Mapping[str, str], str]) -> Case:
    """Return the case in which all of it is given; sections of the file are merged."""
    environ: dict[str, str] = {}
    lines: dict[str, list[str]] = {}
    for variables, text in given:
        environ |= variables
        if text:
            head, line = text.splitlines()
            lines.setdefault(head, []).append(line)
    file = "".join("\n".join([head, *some, ""]) for head, some in lines.items())
    return Case(environ, file)


def answers(
    airflow: Airflow,
    home: Path,
    cases: Sequence[Case],
    options: Sequence[tuple[str, str]],
) -> list[Any]:
    """Return what Airflow says in each case: a value for each option, or its error."""
    (home / "airflow").mkdir(parents=True)
    (home / "ours.py").write_text(BACKEND)
    path = f"{home}:{WITHOUT_KUBERNETES}"
    common = {**airflow.environment(None, home), "PYTHONPATH": path}
    common.pop("AIRFLOW__CORE__AUTH_MANAGER", "")  # a case may set it
    given = [
        {"environ": common | dict(one.environ), "file": one.file, "options": options}
        for one in cases
    ]
    done = subprocess.run(
        [airflow.bin / "python", ASK],
        env=common,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    said: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def config_of(home: Path, one: Case) -> AirflowConfig:
    """Return our configuration of a case."""
    (home / "ours.cfg").write_text(one.file)
    file = {"AIRFLOW_CONFIG": str(home / "ours.cfg")}
    return AirflowConfig({**file, **one.environ})


def ours(home: Path, one: Case) -> Source | None:
    """Return our source of a case; None if there is none."""
    try:
        return find_source(config_of(home, one))
    except SettingsError:
        return None


@on_airflow(*SUPPORTED)
def test_the_database_is_airflows_in_all_pairs_of_ways(
    airflow: Airflow, tmp_path: Path
) -> None:
    backends = [({}, ""), (IN_ENVIRONMENT, ""), ({}, IN_FILE)]
    texts = [(way,) for way in WAYS] + list(combinations(WAYS, 2))
    cases = [
        case(backend, *(way.given() for way in ways))
        for backend in backends
        for ways in texts
    ]
    cases += [
        case(one.given(text), other.given())
        for text in ("", "unknown")
        for one in WAYS
        for other in WAYS
        if one != other and (text == "" or one.key.endswith("_secret"))
    ]

    capitals = Way("file", "database", CONN.upper())
    cases += [case(capitals.given(), way.given()) for way in WAYS]

    said = answers(airflow, tmp_path, cases, [("database", CONN)])

    wrong = []
    for one, answer in zip(cases, said, strict=True):
        found = ours(tmp_path, one)
        if found is not None and found.address is None:
            continue  # Airflow itself is asked
        told_here = found.address.text if found and found.address else "sqlite"
        expected = answer[0] if isinstance(answer, list) else answer
        # an empty one is no URL, whoever reads it
        if expected == "" or expected.startswith("sqlite:"):
            expected = "sqlite"
        if told_here != expected:
            wrong.append(f"{one}: {told_here!r}, Airflow {expected!r}")
    assert [] == wrong, "\n".join(wrong)


# Other options that we read: the sections where Airflow 2 finds each, and Airflow 3.
OTHERS = {
    "sql_alchemy_schema": (("database", "core"), ("database",)),
    "auth_manager": (("core",), ("core",)),
    "plugins_folder": (("core",), ("core",)),
    "backend": (("secrets",), ("secrets",)),
}
TEXTS = ("", "x.y", "$HOME/x", "~/x", "a%b", "${NO_SUCH}")


@on_airflow(*SUPPORTED)
@pytest.mark.sample(2)
@pytest.mark.parametrize("key", OTHERS)
def test_each_other_option_is_airflows(
    airflow: Airflow, tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = OTHERS[key][airflow.is_3]
    monkeypatch.setenv("HOME", str(tmp_path))
    ways = [
        Way(place, section, key + ending)
        for place in ("environment", "file")
        for section in ("database", "core", "secrets")
        for ending in ENDINGS
    ]
    cases = [case(), *(case(one.given(text)) for text in TEXTS for one in ways)]
    cases += [
        case(one.given(text), other.given("other"))
        for text in ("", "x.y")
        for one in ways
        for other in ways
        if one != other
    ]

    nothing, *said = answers(airflow, tmp_path, cases, [(sections[0], key)])

    wrong = []
    for one, answer in zip(cases[1:], said, strict=True):
        found = config_of(tmp_path, one).value(sections[0], key, *sections[1:])
        if answer != [found] and (answer != nothing or found != ""):
            wrong.append(f"{one}: {found!r}, Airflow {answer!r}")
    assert [] == wrong, "\n".join(wrong)


@on_airflow(*SUPPORTED)
def test_fills_the_database_of_the_secret_and_not_that_of_an_older_file(
    airflow: Airflow,
    database: Database,
    postgres: Postgres,
    home: Path,
    start: StartSyncPerm,
    tmp_path: Path,
) -> None:
    older = airflow.new_postgres(postgres, home)
    (tmp_path / "ours.py").write_text(BACKEND)
    (tmp_path / "airflow.cfg").write_text(f"[database]\n{CONN} = {older.url}\n")
    variable = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
    settings = {
        **IN_ENVIRONMENT,
        "PYTHONPATH": f"{tmp_path}:{WITHOUT_KUBERNETES}",
        "AIRFLOW_CONFIG": str(tmp_path / "airflow.cfg"),
        f"{variable}_SECRET": database.url,  # this backend gives what it is asked for
    }
    for one in (database, older):
        add_role(one, "team")
    before = contents(older)
    told = subprocess.run(
        [airflow.bin / "airflow", "config", "get-value", "database", CONN],
        env={**airflow.environment(None, home), **settings},
        capture_output=True,
        text=True,
        check=True,
    )

    start(None, settings).until_good()
    checked = run_command("check", airflow, None, tmp_path, settings)
    settings[f"{variable}_SECRET"] = "unknown-to-it"
    failed = run_command("check", airflow, None, tmp_path, settings)

    assert database.url == told.stdout.splitlines()[-1]
    assert ("team", "can_read") in grants_on(database, "Website")
    assert before == contents(older)
    assert 0 == checked.returncode, checked.stdout
    assert f"from {variable}_SECRET" in checked.stdout
    assert 3 == failed.returncode, failed.stdout
    why = f"connection_command_failed: {variable}_SECRET gave Airflow no URL"
    assert why in failed.stdout
    assert PASSWORD not in checked.stdout + failed.stdout + failed.stderr
