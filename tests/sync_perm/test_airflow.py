"""
Finding the image's Airflow, and the environment and the folders of its process.
"""

import sys
from pathlib import Path

import pytest

from sidecar_runtime.errors import SettingsError
from sync_perm.airflow import Airflow, Installation, find_installation, outer_path, own_folder
from sync_perm.config import AirflowConfig, parse_url
from sync_perm.runner import applies_access_control
from tests.support.raising import raised
from tests.sync_perm.given import AIRFLOW_2
from tests.sync_perm.site import Site

FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
MANAGER = "AIRFLOW__CORE__AUTH_MANAGER"


def find(site: Site, **environ: str) -> Installation:
    return find_installation(AirflowConfig(site.environment(**environ)))


def refusal(site: Site, **environ: str) -> str:
    return str(raised(SettingsError, find, site, **environ))


def test_finds_airflow_without_importing_it(tmp_path: Path) -> None:
    site = Site(tmp_path)

    found = find(site)

    assert (str(site.command), sys.executable) == (found.command, found.python)
    assert ("2.11.2", "1.5.4", (2, 11)) == (found.version, found.fab, found.release)


@pytest.mark.parametrize(
    "shebang",
    [
        f"#!{sys.executable} -E",
        f"#!/bin/sh\n'''exec' \"{sys.executable}\" \"$0\" \"$@\"\n' '''",
        f"#!/bin/sh\n'''exec' {sys.executable} \"$0\" \"$@\"\n' '''",
    ],
)
def test_takes_python_from_the_shebang_of_the_command(tmp_path: Path, shebang: str) -> None:
    site = Site(tmp_path)
    site.write("", shebang)

    assert sys.executable == find(site).python


def test_follows_env_but_skips_the_sidecars_own_environment(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.write("", "#!/usr/bin/env python3")
    (site.command.parent / "python3").symlink_to(sys.executable)
    ours = str(Path(sys.executable).parent)

    found = find(site, PATH=f"{ours}:{site.command.parent}:/usr/bin")

    assert str(site.command.parent / "python3") == found.python
    assert f"{site.command.parent}:/usr/bin" == outer_path(
        {"PATH": f"{ours}:{found.command[:-8]}:/usr/bin"}
    )


@pytest.mark.parametrize("shebang", ["#!/bin/sh", "", f"#!{sys.executable}"])
def test_a_command_that_is_not_airflow_is_a_settings_error(tmp_path: Path, shebang: str) -> None:
    site = Site(tmp_path)
    site.write("", shebang)

    said = refusal(site, PYTHONPATH="")

    assert f"has no airflow command whose Python has Airflow (found {site.command})" in said
    site.command.unlink()
    assert "(found none); build this image on your Airflow image" in refusal(site)


def test_an_airflow_before_2_11_is_a_settings_error(tmp_path: Path) -> None:
    assert "leads to Airflow 2.10.5; upgrade it to 2.11" in refusal(Site(tmp_path, "2.10.5"))


@pytest.mark.parametrize(
    ("version", "fab", "manager", "told"),
    [
        ("2.11.2", "1.5.4", "", ""),
        ("2.11.2", "1.5.4", FAB, ""),
        ("3.3.2", "3.10.2", FAB, ""),
        ("3.3.2", "3.10.2", "", FAB),
    ],
)
def test_accepts_fabs_auth_manager_and_sets_it_for_airflow_3_if_unset(
    tmp_path: Path, version: str, fab: str, manager: str, told: str
) -> None:
    found = find(Site(tmp_path, version, fab), **{MANAGER: manager})

    assert (version, told) == (found.version, found.auth_manager)


def test_accepts_only_subclasses_of_fabs_auth_manager_whatever_their_name(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.add_python()
    module = site.packages / "airflow/providers/fab/auth_manager/fab_auth_manager.py"
    module.write_text("print('hello')\nclass FabAuthManager: ...\n")
    (site.folder / "plugins").mkdir()
    for place, name in ((site.packages, "acme"), (site.folder / "plugins", "fabrikam")):
        (place / f"{name}.py").write_text(
            f"from {FAB.rpartition('.')[0]} import FabAuthManager\n"
            "class Okta(FabAuthManager): ...\n"
            "class FabLikeAuthManager: ...\n"
        )

    for ours in ("acme.Okta", "fabrikam.Okta"):
        assert "2.11.2" == find(site, **{MANAGER: ours}).version
    for theirs in ("acme.FabLikeAuthManager", "fabrikam.FabLikeAuthManager"):
        assert "is not derived from FabAuthManager" in refusal(site, **{MANAGER: theirs})
    assert [] == list(site.folder.rglob("airflow.cfg"))


@pytest.mark.parametrize(
    ("version", "fab", "manager", "word"),
    [
        ("3.3.2", "", "", "needs the FAB provider"),
        ("3.3.2", "", FAB, "needs the FAB provider"),
        ("3.3.2", "", "fabrikam.KeycloakAuthManager", "needs the FAB provider"),
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
    ("version", "fab", "is_known"),
    [
        ("2.11.2", "1.5.4", True),
        ("2.12.0", "2", False),
        ("3.0.0", "2.0.0", True),
        ("3.3.2", "3.10.2", True),
        ("3.4.0", "3.10.2", True),
        ("3.5.0", "3.10.2", False),
        ("3.3.2", "4.0.0", False),
        ("3.3.2", "", False),
        ("2.11.2", "2.0.0", False),
        ("4.0.0", "9", False),
        ("unknown", "1", False),
    ],
)
def test_knows_which_versions_were_tested(version: str, fab: str, is_known: bool) -> None:
    found = Installation("", "", version, fab, "", False)

    assert is_known == found.is_known


class Own:
    """An auth manager without the function that Airflow 3.4 asks for."""


class Fab:
    """FAB's from 3.10.2 on."""

    @staticmethod
    def sync_dag_perms() -> None:
        """Apply an access control."""


@pytest.mark.parametrize(
    ("release", "setting", "manager", "expected"),
    [
        ((2, 11), FAB, Fab, False),
        ((3, 3), FAB, Own, True),
        ((3, 3), "acme.MyFabAuthManager", Own, True),
        ((3, 3), "acme.Okta", Fab, False),
        ((3, 4), FAB, Own, False),
        ((3, 4), FAB, Fab, True),
        ((3, 4), "acme.Okta", Fab, True),
        ((3, 4), FAB, None, False),
    ],
)
def test_who_applies_access_control_is_decided_as_airflow_does(
    release: tuple[int, int], setting: str, manager: type | None, expected: bool
) -> None:
    assert expected == applies_access_control(release, setting, manager)


@pytest.mark.parametrize(("attribute", "restores"), [("sync_dag_perms = print", True), ("", False)])
def test_airflow_3_4_applies_access_control_only_with_a_fab_provider_that_can(
    tmp_path: Path, attribute: str, restores: bool
) -> None:
    site = Site(tmp_path, "3.4.0", "3.10.1")
    site.add_python()
    module = site.packages / "airflow/providers/fab/auth_manager/fab_auth_manager.py"
    module.write_text(f"class FabAuthManager:\n    {attribute or 'pass'}\n")

    found = find(site)

    assert (True, restores) == (found.is_known, found.restores_dags)


def test_reads_the_arguments_for_the_database_driver(tmp_path: Path) -> None:
    site = Site(tmp_path)
    (site.packages / "ours.py").write_text(
        "ARGS = {'sslmode': 'verify-ca'}\nBAD = {'a': object()}\n"
    )
    name = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS"

    assert {"sslmode": "verify-ca"} == find(site, **{name: "ours.ARGS"}).arguments
    for wrong in ("ours.BAD", "ours.NONE", "nothing.ARGS"):
        said = refusal(site, **{name: wrong})
        assert f"{name}='{wrong}' cannot be imported as a mapping of plain values" in said


# --- its environment

ADDRESS = parse_url("TEST", "postgresql://u:p@h/d", "")


def around(home: Path, folder: Path, **environ: str) -> dict[str, str]:
    config = AirflowConfig({"AIRFLOW_HOME": str(home), "HOME": "/home/someone", **environ})
    return dict(Airflow(AIRFLOW_2, config, str(folder)).environment(ADDRESS))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_airflow_gets_its_own_folder_and_no_missing_path(home: Path, tmp_path: Path) -> None:
    found = around(home, tmp_path)

    for name in ("HOME", "TMPDIR", "AIRFLOW_HOME", "AIRFLOW__LOGGING__BASE_LOG_FOLDER"):
        assert found[name].startswith(str(tmp_path))
        assert not found[name].startswith(str(home))
    assert set() == found.keys() & {"AIRFLOW_CONFIG", "AIRFLOW__WEBSERVER__CONFIG_FILE"}
    assert (tmp_path / "logs").is_dir()


def test_uses_the_existing_configuration_files(home: Path, tmp_path: Path) -> None:
    (home / "airflow.cfg").write_text("[core]\nplugins_folder = /elsewhere\n")
    (home / "webserver_config.py").touch()
    (home / "plugins").mkdir()

    found = around(home, tmp_path, AIRFLOW__FAB__CONFIG_FILE="/mine.py")

    assert str(home / "airflow.cfg") == found["AIRFLOW_CONFIG"]
    assert str(home / "webserver_config.py") == found["AIRFLOW__WEBSERVER__CONFIG_FILE"]
    assert "/mine.py" == found["AIRFLOW__FAB__CONFIG_FILE"]
    assert "AIRFLOW__CORE__PLUGINS_FOLDER" not in found  # airflow.cfg sets it


def test_modules_beside_the_configuration_can_be_imported(home: Path, tmp_path: Path) -> None:
    for name in ("config", "dags"):
        (home / name).mkdir()
    (home / "config" / "log_config.py").touch()

    for _ in range(2):  # once per pass
        found = around(home, tmp_path)

    assert (Path(found["AIRFLOW_HOME"]) / "config" / "log_config.py").exists()
    assert str(home / "dags") == found["AIRFLOW__CORE__DAGS_FOLDER"]


def test_finds_the_users_packages_although_home_differs(home: Path, tmp_path: Path) -> None:
    assert "/home/someone/.local" == around(home, tmp_path)["PYTHONUSERBASE"]
    assert "/set" == around(home, tmp_path, PYTHONUSERBASE="/set")["PYTHONUSERBASE"]


def test_omits_own_settings_and_normalizes_the_database_url(home: Path, tmp_path: Path) -> None:
    given = {"SYNC_PERM_LOG_LEVEL": "debug", "PLUGIN_SETTING": "kept"}
    found = around(home, tmp_path, AIRFLOW__CORE__SQL_ALCHEMY_CONN="postgres://u:p@h/d", **given)

    assert ("kept", None) == (found["PLUGIN_SETTING"], found.get("SYNC_PERM_LOG_LEVEL"))
    assert "postgresql://u:p@h/d" == found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]


def test_removes_its_own_folder_and_those_of_killed_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "sync-perm-killed").mkdir()
    (tmp_path / "sync-perm-killed" / ".lock").touch()
    (tmp_path / "sync-permanent").mkdir()

    with own_folder() as one, own_folder() as another:
        there = {str(path) for path in tmp_path.iterdir()}

    assert {one, another, str(tmp_path / "sync-permanent")} == there
    assert [tmp_path / "sync-permanent"] == list(tmp_path.iterdir())
