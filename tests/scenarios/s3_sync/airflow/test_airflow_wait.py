"""`s3-sync wait` and a live Airflow 3, asked by a user with exactly the least rights."""

import json
from pathlib import Path

import pytest
from werkzeug.security import generate_password_hash

from demo.airflow.components import Components
from tests import Bodies
from tests.scenarios.s3_sync.airflow.dag_folders import head_for
from tests.support.airflow.databases import Postgres, skip_without_postgres
from tests.support.airflow.installed import Airflow
from tests.support.airflow.permissions import add_member, add_role, add_user, grant
from tests.support.aws.writable_s3 import WritableS3
from tests.support.s3_sync.publishing import Publishing, Ran, write_files
from tests.support.s3_sync.releases import make_release
from tests.support.s3_sync.shelf import release_daemon

pytestmark = [pytest.mark.timeout(3_600), pytest.mark.usefixtures("only_in_full")]
PASSWORD = "only this test knows it"
# Each DAG, and the description that the scheduler reads.
ROWS = """SELECT dag_id, bundle_version, (
    SELECT data -> 'dag' ->> 'description' FROM serialized_dag
    WHERE dag_id = dag.dag_id ORDER BY created_at DESC LIMIT 1
) FROM dag WHERE NOT is_stale"""
LOCAL = "airflow.dag_processing.bundles.local.LocalDagBundle"


def dag(name: str, description: str) -> bytes:
    return (
        f"{head_for('3')}\nwith DAG('{name}', description='{description}', schedule=None):"
        "\n    pass\n"
    ).encode()


@pytest.mark.parametrize("is_folder", [False, True])
def test_says_when_each_dag_is_read_and_which_file_cannot_be(
    tmp_path: Path, is_folder: bool
) -> None:
    """Of a release; or of a folder, without DAG versions."""
    skip_without_postgres()
    airflow = Airflow.install_or_skip("3")
    dags = tmp_path / "dags"
    target = tmp_path / "target"
    more = {
        "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "30",  # its default
        "AIRFLOW__FAB__CACHE_TTL": "0",
    }
    rights = ["DAGs", "ImportError"]
    if is_folder:
        rights.append("DAG Code")
        kwargs = {"path": str(target / "current"), "refresh_interval": 1}
        more["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] = json.dumps(
            [{"name": "dags", "classpath": LOCAL, "kwargs": kwargs}]
        )
    with Postgres() as server, WritableS3() as s3:
        database = airflow.new_postgres(server, tmp_path)
        add_role(database, "deploy")
        add_user(database, "ci", generate_password_hash(PASSWORD, "pbkdf2:sha256"))
        add_member(database, "ci", "deploy")
        with (
            release_daemon(s3, target, interval="1s") as daemon,
            Components(
                airflow, database.url, tmp_path / "airflow", target / "current", more
            ) as components,
        ):
            settings = {
                "AIRFLOW_API_URL": components.endpoint,
                "AIRFLOW_API_USERNAME": "ci",
                "AIRFLOW_API_PASSWORD": PASSWORD,
            }
            publisher = Publishing(s3, s3.bucket, tmp_path / "home", settings)

            def deploy(files: Bodies) -> Ran:
                words = ("publish", write_files(dags, files))
                if not is_folder:
                    return publisher.told(*words, "--wait")
                publisher.succeed(*words)
                return publisher.told("wait", dags, "--timeout", "2m")

            def check(ran: Ran, files: Bodies, **described: str) -> None:
                version = None if is_folder else make_release(files).revision
                assert {
                    (name, version, text) for name, text in described.items()
                } == set(database.query(ROWS)), ran

            old = {"one.py": dag("one", "old"), "gone.py": dag("gone", "\u00e9")}
            publisher.succeed("publish", write_files(dags, old))
            daemon.until_synced()
            components.start()
            components.wait_until_answers()
            for resource in rights:
                ran = publisher.fails("airflow_denied", "wait", *[dags] * is_folder)
                assert f"`can read on {resource}`" in ran.err
                grant(database, "deploy", "can_read", resource)
            check(deploy(old), old, one="old", gone="\u00e9")

            new = {"one.py": dag("one", "new"), "two.py": dag("two", "new")}
            check(deploy(new), new, one="new", two="new")

            ran = deploy(new | {"two.py": b"import airflow  # dag\n1/0\n"})
            assert 4 == ran.code, ran
            assert "two.py:2: Traceback" in ran.err, ran
            assert "ZeroDivisionError: division by zero" in ran.err

            check(deploy(old), old, one="old", gone="\u00e9")

            if not is_folder:
                check(
                    publisher.told("rollback", make_release(new).revision, "--wait"),
                    new,
                    one="new",
                    two="new",
                )
