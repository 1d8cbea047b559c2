"""
Finding the image's Airflow, and the environment and the folders of its process.
"""

import logging
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock, Mock

import pytest
from sqlalchemy.exc import OperationalError

from sidecar_runtime.errors import SettingsError
from sidecar_runtime.fence import Fence
from sync_perm import inside_airflow
from sync_perm.airflow import (
    Airflow,
    Installation,
    Work,
    environment,
    find_installation,
)
from sync_perm.airflow_config import AirflowConfig, parse_url
from sync_perm.inside_airflow import ENDED, Errors, applies_access_control, explained
from tests import Texts
from tests.support.raising import raised
from tests.sync_perm.given import AIRFLOW_2
from tests.sync_perm.site import Site

FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
MANAGER = "AIRFLOW__CORE__AUTH_MANAGER"
APPLESS = "ApplessAirflowSecurityManager in ../www/security_appless.py"


def find(site: Site, **environ: str) -> Installation:
    config = AirflowConfig(site.environment(**environ))
    return find_installation(config, str(site.folder / "scratch"))


def refusal(site: Site, **environ: str) -> str:
    return str(raised(SettingsError, find, site, **environ))


def write_python(folder: Path, script: str) -> str:
    """Write a shell script that stands in for Airflow's Python."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return str(python)


@pytest.mark.parametrize(
    "shebang",
    [
        f"#!{sys.executable} -E",
        f"#!/bin/sh\n'''exec' \"{sys.executable}\" \"$0\" \"$@\"\n' '''",
    ],
)
def test_takes_python_from_the_shebang_of_the_command(
    tmp_path: Path, shebang: str
) -> None:
    site = Site(tmp_path)
    site.write("", shebang)

    found = find(site)

    assert (str(site.command), sys.executable) == (found.command, found.python)


@pytest.mark.parametrize("shebang", ["#!/bin/sh", "", f"#!{sys.executable}"])
def test_a_command_that_is_not_airflow_is_a_settings_error(
    tmp_path: Path, shebang: str
) -> None:
    site = Site(tmp_path)
    site.write("", shebang)

    said = refusal(site, PYTHONPATH="")

    assert (
        f"has no airflow command whose Python has Airflow (found {site.command})"
        in said
    )
    site.command.unlink()
    assert "(found none); build this image on your Airflow image" in refusal(site)
    assert "leads to Airflow 2.10.5; upgrade it to 2.11" in refusal(
        Site(tmp_path / "old", "2.10.5")
    )


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("kill -9 $$", "signal 9"),
        ("sleep 9", "killed after 1 s"),
        ("""echo '{"failed": "a command said secret-word"}'""", "a command said ***"),
    ],
)
def test_a_python_that_tells_nothing_is_not_taken_for_one_without_airflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, expected: str
) -> None:
    """As without memory, or with next to no CPU."""
    monkeypatch.setattr("sync_perm.airflow.COMMAND_SECONDS", 1)
    site = Site(tmp_path)
    python = write_python(tmp_path, end)
    site.write("", f"#!{python}")

    told = f"leads to {site.command}, whose Python failed: {expected}"
    assert told in refusal(site, MY_PASSWORD="secret-word")


def test_accepts_only_subclasses_of_fabs_auth_manager_whatever_their_name(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path)
    site.add_python("print('hello')\nclass FabAuthManager: ...\n")
    plugins = site.folder / "plugins"
    plugins.mkdir()
    (plugins / "acme.py").write_text(
        f"from {FAB.rpartition('.')[0]} import FabAuthManager\n"
        "class Okta(FabAuthManager): ...\n"
        "class FabLikeAuthManager: ...\n"
    )

    assert "2.11.2" == find(site, **{MANAGER: "acme.Okta"}).version
    theirs = refusal(site, **{MANAGER: "acme.FabLikeAuthManager"})
    assert "is not derived from FabAuthManager" in theirs


@pytest.mark.parametrize(
    ("version", "fab", "manager", "word"),
    [
        ("3.3.2", "", "", "needs the FAB provider"),
        ("3.3.2", "3.10.2", "fabrikam.KeycloakAuthManager", "cannot be imported"),
        ("2.11.2", "1.5.4", "FabAuthManager", "cannot be imported"),
    ],
)
def test_refuses_other_auth_managers(
    tmp_path: Path, version: str, fab: str, manager: str, word: str
) -> None:
    said = refusal(Site(tmp_path, version, fab), **{MANAGER: manager})

    assert said.startswith(f"{MANAGER}={manager!r}")
    assert word in said


@pytest.mark.parametrize(
    ("version", "unfit"),
    [
        ("2.11.2", ""),  # which has its own
        ("3.3.2", f"needs {APPLESS} of the FAB provider"),
    ],
)
def test_asks_for_the_security_manager_where_it_is_fabs(
    tmp_path: Path, version: str, unfit: str
) -> None:
    site = Site(tmp_path, version)
    (site.packages / "airflow/providers/fab/www/security_appless.py").write_text("")

    assert unfit == find(site).unfit


@pytest.mark.parametrize(
    ("version", "fab", "is_known"),
    [
        ("2.11.2", "1.5.4", True),
        ("3.0.0", "2.0.0", True),
        ("3.4.0", "3.10.2", True),
        ("3.5.0", "3.10.2", False),
        ("unknown", "1", False),
    ],
)
def test_knows_which_versions_were_tested(
    version: str, fab: str, is_known: bool
) -> None:

    assert is_known == (not Installation("", "", version, fab, False).unfit)


@pytest.mark.parametrize(
    ("release", "setting", "expected"),
    [
        ((2, 11), FAB, False),
        ((3, 3), "acme.MyFabAuthManager", True),
        ((3, 3), "acme.Okta", False),
    ],
)
def test_who_applies_access_control_is_up_to_3_3_decided_by_the_setting(
    release: tuple[int, int], setting: str, expected: bool
) -> None:
    assert expected == applies_access_control(release, setting, None)


def test_airflow_3_4_asks_the_class_of_the_auth_manager(tmp_path: Path) -> None:
    for attribute, restores in (("sync_dag_perms = print", True), ("pass", False)):
        site = Site(tmp_path / str(restores), "3.4.0", "3.10.1")
        site.add_python(f"class FabAuthManager:\n    {attribute}\n")

        assert ("", restores) == (find(site).unfit, find(site).restores_dags)


# --- its environment


def test_airflow_writes_into_its_own_folder_and_reads_the_users_files(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    folder = tmp_path / "own"
    for path in (home / "plugins", home / "config", home / ".postgresql", folder):
        path.mkdir(parents=True)
    (home / "airflow.cfg").write_text("[core]\ndags_folder = /elsewhere\n")
    (home / "webserver_config.py").touch()
    given = {
        "AIRFLOW_HOME": str(home),
        "HOME": str(home),
        "SYNC_PERM_LOG_LEVEL": "debug",
        "PLUGIN_SETTING": "kept",
    }

    for _ in range(2):  # once per pass
        found = environment(AirflowConfig(given), str(folder))

    own = {"HOME", "TMPDIR", "AIRFLOW_HOME", "AIRFLOW__LOGGING__BASE_LOG_FOLDER"}
    assert own == {name for name in own if found[name].startswith(str(folder))}
    assert str(home / "airflow.cfg") == found["AIRFLOW_CONFIG"]
    assert FAB == found[MANAGER], "assumed"
    assert "airflow" == found["USER"], "an arbitrary UID has no name"
    links = {
        path.name: path.readlink() for path in folder.iterdir() if path.is_symlink()
    }
    names = (".postgresql", "config", "plugins", "webserver_config.py")
    assert {name: home / name for name in names} == links
    assert "SYNC_PERM_LOG_LEVEL" not in found
    assert (f"{home}/.local", "kept") == (
        found["PYTHONUSERBASE"],
        found["PLUGIN_SETTING"],
    )


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (
            "kill -9 $$",
            "pass_killed: Airflow died of signal 9 before DAG 'b' was done: out",
        ),
        (
            "exit 1",
            "pass_failed: Airflow ended with code 1 before DAG 'b' was done: out",
        ),
        (
            "sleep 60",
            "pass_timeout: Airflow was killed after 1 s before DAG 'b' was done: out",
        ),
    ],
)
def test_a_pass_that_ends_early_names_the_dag_that_it_had_not_done(
    tmp_path: Path, end: str, expected: str
) -> None:
    said = f'echo \'{{"tried": "a", "error": ""}}\'\necho out\n{end}'
    found = replace(AIRFLOW_2, python=write_python(tmp_path, said))
    run = Airflow(found, AirflowConfig({}), str(tmp_path)).run

    report = run(
        Work(dags=["a", "b", "c"]), parse_url("TEST", "mysql://h/d"), Fence(), 1.0
    )

    assert report.error
    assert expected == f"{report.error.reason}: {report.error}"
    assert {"a": ""} == report.tried, "what it had done is known"


def test_what_the_database_did_is_no_fault_of_the_users_file_that_it_passed() -> None:
    code = compile("raise error", "/opt/webserver_config.py", "exec")
    lost = KeyError()
    lost.__cause__ = OperationalError("SELECT 1", {}, Exception("terminated"))
    for error, place in ((lost, ""), (KeyError(), "/opt/webserver_config.py:1")):
        assert (
            place
            == explained(raised(type(error), exec, code, {"error": error}))["where"]
        )


def test_hears_errors_after_airflow_has_configured_its_loggers_anew() -> None:
    errors = Errors(logging.ERROR)
    logger = logging.getLogger("flask_appbuilder")

    assert [] == errors.of(Mock(), logger.handlers.clear)
    assert ["no"] == errors.of(Mock(), lambda: logger.error("no"))


@pytest.mark.parametrize(
    ("least", "starts", "seconds", "done"),
    [
        (0.0, 0.0, 99.0, ["a"]),
        (9.0, 0.0, 99.0, ["a", "b"]),
        (0.0, 9e9, 99.0, ["a", "b"]),
        (99.0, 9e9, 0.0, ["a"]),
    ],
)
def test_a_portion_ends_with_its_time_but_not_before_its_first_dag(
    monkeypatch: pytest.MonkeyPatch,
    least: float,
    starts: float,
    seconds: float,
    done: list[str],
) -> None:
    """
    It begins after the start. Where that takes long, it is longer, up to the limit of
    all.
    """
    seen = Mock(**{"monotonic.side_effect": [0.0, 50.0, 51.0, 52.0]})
    monkeypatch.setattr(inside_airflow, "time", seen)
    monkeypatch.setattr(inside_airflow, "imported", lambda _: MagicMock())
    monkeypatch.setattr(inside_airflow, "PORTION_SECONDS", least)
    monkeypatch.setattr(inside_airflow, "STARTS", starts)
    task = {"roles": False, "load": False, "given": {"t": []}, "dags": ["a", "b"]}
    answers: list[Texts] = []

    inside_airflow.work({**task, "seconds": seconds}, answers.append)

    assert [
        {"tried": name, "error": how}
        for name in ("role t", *done)
        for how in (ENDED, "")
    ] == answers
