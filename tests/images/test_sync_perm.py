"""
The image of sync-perm: an Airflow image with one additional folder, which works
hardened.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.container import Container, Image
from tests.support.airflow.databases import Database, Postgres, skip_without_postgres
from tests.support.airflow.permissions import add_role, grants_on
from tests.support.waiting import wait_until

PASS_SECONDS = 240.0

LIST_AIRFLOWS = """
import importlib.metadata, json, sys
print(json.dumps([sys.prefix, *sorted(d.name for d in importlib.metadata.distributions())]))
"""


@pytest.fixture(scope="module")
def migrated(
    image: Image, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """
    A metadata database that the image's own Airflow created.
    """
    skip_without_postgres()
    folder = tmp_path_factory.mktemp("migrated")
    folder.chmod(0o777)
    with Postgres() as server:
        database = server.new_database()
        variables = {
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.url,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "HOME": str(folder),
            "TMPDIR": str(folder),
        }
        image.run_tool(
            *("run", "--rm", "--entrypoint=airflow", *image.hardening("50000:0")),
            *(f"--env={name}={value}" for name, value in variables.items()),
            *(f"--volume={folder}:{folder}", image.name, "db", "migrate"),
        )
        yield database


def roles_with_website(metadata: Database) -> set[str]:
    """
    Return the roles that may see Airflow's pages.
    """
    return {
        role for role, action in grants_on(metadata, "Website") if action == "can_read"
    }


def test_airflow_packages_are_those_of_the_base_image(image: Image) -> None:
    base = Image(image.tool, image.labels()["base.name"])

    ours = json.loads(image.run("-c", LIST_AIRFLOWS, entrypoint="python3"))

    assert json.loads(base.run("-c", LIST_AIRFLOWS, entrypoint="python3")) == ours
    assert "apache-airflow" in ours


@pytest.mark.parametrize(
    "user", ["50000:0", "1000710000:0"], ids=["chart", "arbitrary"]
)
def test_syncs_permissions_in_a_hardened_container(
    image: Image, migrated: Database, tmp_path: Path, user: str
) -> None:
    environment = {
        "AIRFLOW__CORE__SQL_ALCHEMY_CONN": migrated.url,
        "TMPDIR": str(tmp_path / "scratch"),
        "INTERVAL": "0.5",
        "SYNC_PERM_HTTP_BIND": "127.0.0.1:0",
    }
    with Container(
        image, environment, tmp_path / "home", [tmp_path / "scratch"], user=user
    ) as daemon:
        daemon.wait_until_ready(PASS_SECONDS)
        before = roles_with_website(migrated)
        assert {"Admin", "Viewer", "User", "Op"} <= before
        add_role(migrated, f"team-{user}")
        wait_until(
            lambda: roles_with_website(migrated) == {*before, f"team-{user}"},
            "the late role is served",
            PASS_SECONDS,
        )
        daemon.wait_for_event(
            "pass_finished", PASS_SECONDS, reason="roles", result="success"
        )
        code = daemon.terminate().code

    assert 0 == code
    assert [] == daemon.complaints()
    assert [] == list((tmp_path / "scratch").iterdir())
