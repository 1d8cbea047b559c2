"""
The image of sync-perm: an Airflow image, unchanged but for one folder, that works hardened.
"""

import json
import re
import shutil
import sqlite3
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.images.container import Container, Image
from tests.images.locks import assert_are_locked
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
PYTHON = "/opt/sync-perm/bin/python"
PASS_SECONDS = 90.0
SIZE_OVER_BASE_BYTES = 40_000_000  # a third of it is cryptography, for MySQL

LIST_CONTENTS = """
import importlib.metadata, json, os, sys
print(json.dumps({
    "distributions": [d.name for d in importlib.metadata.distributions()],
    "programs": sorted(os.listdir("/opt/sync-perm/bin")),
    "root": os.listdir("/"),
    "opt": os.listdir("/opt"),
    "base": sys.base_prefix,
}))
"""
LIST_AIRFLOWS = """
import importlib.metadata, json, sys
print(json.dumps([sys.prefix, *sorted(d.name for d in importlib.metadata.distributions())]))
"""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """
    The project of the sidecar.
    """
    text = (ROOT / "sidecars/sync-perm/pyproject.toml").read_text()
    found: dict[str, Any] = tomllib.loads(text)["project"]
    return found


@pytest.fixture(scope="module")
def migrated(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A metadata database that the image's own Airflow made.
    """
    folder = tmp_path_factory.mktemp("migrated")
    folder.chmod(0o777)
    variables = {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }
    image.run_tool(
        *("run", "--rm", "--entrypoint=airflow", *image.hardening("50000:0")),
        *(f"--env={name}={value}" for name, value in variables.items()),
        *(f"--volume={folder}:{folder}", image.name, "db", "migrate"),
    )
    return folder / "airflow.db"


@pytest.fixture
def metadata(migrated: Path, tmp_path: Path) -> Path:
    """
    A copy of it that every user may write, in a folder of its own.
    """
    folder = tmp_path / "metadata"
    folder.mkdir()
    copy = Path(shutil.copy(migrated, folder / "airflow.db"))
    copy.chmod(0o666)
    return copy


def container(image: Image, metadata: Path, user: str = "50000:0", **settings: str) -> Container:
    """
    The published example: one variable.
    """
    scratch = metadata.parent.with_name("scratch")
    environment = {
        "AIRFLOW__CORE__SQL_ALCHEMY_CONN": f"sqlite:///{metadata}",
        "TMPDIR": str(scratch),
        "INTERVAL": "0.5",
        "SYNC_PERM_HTTP_BIND": "127.0.0.1:0",
        **settings,
    }
    return Container(
        image, environment, metadata.parents[1] / "home", [metadata.parent, scratch], user=user
    )


def roles_with_website(metadata: Path) -> set[str]:
    """
    The roles that may see Airflow's pages.
    """
    with sqlite3.connect(metadata) as database:
        rows = database.execute(
            "SELECT r.name FROM ab_permission_view_role g JOIN ab_role r ON r.id = g.role_id"
            " JOIN ab_permission_view pv ON pv.id = g.permission_view_id"
            " JOIN ab_permission p ON p.id = pv.permission_id"
            " JOIN ab_view_menu v ON v.id = pv.view_menu_id"
            " WHERE p.name = 'can_read' AND v.name = 'Website'"
        )
        return {name for (name,) in rows}


def add_role(metadata: Path) -> None:
    with sqlite3.connect(metadata) as database:
        database.execute("INSERT INTO ab_role (name) VALUES ('team')")


def test_runs_the_daemon_as_the_charts_user_without_a_shell(image: Image) -> None:
    config = image.inspect()["Config"]

    assert "50000:0" == config["User"]
    assert ["/opt/sync-perm/bin/sync-perm"] == config["Entrypoint"]
    assert not config.get("Cmd")
    assert not config.get("Healthcheck")
    assert config.get("StopSignal", "SIGTERM") in ("SIGTERM", "15")


def test_our_folder_holds_what_the_lock_names_and_nothing_else(image: Image) -> None:
    contents = json.loads(image.run("-c", LIST_CONTENTS, entrypoint=PYTHON))

    assert_are_locked("sync-perm", contents["distributions"])
    installers = re.compile(r"pip|uv|wheel|easy_install|flit")
    assert [] == [name for name in contents["programs"] if installers.match(name)]
    assert "src" not in contents["root"]
    assert "backend" not in contents["opt"]


def test_is_small(image: Image) -> None:
    print(f"over its base: {image.over_base_bytes / 1e6:.1f} MB")

    assert image.over_base_bytes <= SIZE_OVER_BASE_BYTES


def test_nothing_of_airflow_is_changed(image: Image) -> None:
    base = Image(
        image.tool, image.inspect()["Config"]["Labels"]["org.opencontainers.image.base.name"]
    )

    ours = json.loads(image.run("-c", LIST_AIRFLOWS, entrypoint="python3"))

    assert json.loads(base.run("-c", LIST_AIRFLOWS, entrypoint="python3")) == ours
    assert "apache-airflow" in ours


@pytest.mark.parametrize("user", ["50000:0", "1000710000:0"], ids=["chart", "arbitrary"])
def test_syncs_hardened(image: Image, metadata: Path, user: str) -> None:
    with container(image, metadata, user) as daemon:
        daemon.wait_until_ready(PASS_SECONDS)
        defaults = {"Admin", "Viewer", "User", "Op"}
        assert defaults == roles_with_website(metadata)
        add_role(metadata)
        wait_until(
            lambda: roles_with_website(metadata) == {*defaults, "team"},
            "the late role is served",
            PASS_SECONDS,
        )
        daemon.wait_for_event("pass_finished", PASS_SECONDS, reason="roles", result="success")
        code = daemon.terminate().code

    assert 0 == code
    assert [] == daemon.complaints()
    assert [] == list(metadata.parent.with_name("scratch").iterdir())


def test_one_shot_syncs_and_ends(image: Image, metadata: Path) -> None:
    add_role(metadata)

    with container(image, metadata, SYNC_PERM_ONE_SHOT="true") as daemon:
        ended = daemon.wait_for_exit(PASS_SECONDS)

    assert 0 == ended.code, daemon.log()
    assert "team" in roles_with_website(metadata)
    assert [] == daemon.find_events("http_listening")
    assert [] == daemon.complaints()


def test_prints_its_version_and_help(image: Image, project: dict[str, Any]) -> None:
    assert project["version"] in image.run("--version")
    assert "check" in image.run("--help")
