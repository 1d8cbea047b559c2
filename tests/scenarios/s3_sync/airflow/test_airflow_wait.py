"""`s3-sync wait` and a live Airflow 3, asked by a user with exactly the least rights."""

from pathlib import Path

import pytest
from werkzeug.security import generate_password_hash

from demo.airflow.components import Components
from tests.scenarios.s3_sync.airflow.dag_folders import head_for
from tests.support.airflow.databases import Postgres, skip_without_postgres
from tests.support.airflow.installed import Airflow
from tests.support.airflow.permissions import add_member, add_role, add_user, grant
from tests.support.aws.writable_s3 import WritableS3
from tests.support.s3_sync.publishing import Publishing, write_files
from tests.support.s3_sync.shelf import release_daemon

pytestmark = [pytest.mark.timeout(3_600), pytest.mark.usefixtures("only_in_full")]
PASSWORD = "only this test knows it"
RIGHTS = (("can_read", "DAGs"), ("can_read", "ImportError"))
# Each DAG, and the description that the scheduler reads.
ROWS = """SELECT dag_id, bundle_version, (
    SELECT data -> 'dag' ->> 'description' FROM serialized_dag
    WHERE dag_id = dag.dag_id ORDER BY created_at DESC LIMIT 1
) FROM dag WHERE NOT is_stale"""
# Airflow's default: what was written is not written again so soon.
UNWRITTEN = {"AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "30"}


def dag(name: str, description: str) -> bytes:
    return (
        f"{head_for('3')}\nwith DAG('{name}', description='{description}', schedule=None):"
        "\n    pass\n"
    ).encode()


def test_says_when_each_dag_is_read_and_which_file_cannot_be(tmp_path: Path) -> None:
    skip_without_postgres()
    airflow = Airflow.install_or_skip("3")
    dags = tmp_path / "dags"
    with Postgres() as server, WritableS3() as s3:
        database = airflow.new_postgres(server, tmp_path)
        add_role(database, "deploy")
        add_user(database, "ci", generate_password_hash(PASSWORD, "pbkdf2:sha256"))
        add_member(database, "ci", "deploy")
        for right in RIGHTS:
            grant(database, "deploy", *right)
        target = tmp_path / "target"
        with (
            release_daemon(s3, target, interval="1s") as daemon,
            Components(
                airflow,
                database.url,
                tmp_path / "airflow",
                target / "current",
                UNWRITTEN,
            ) as components,
        ):
            settings = {
                "AIRFLOW_API_URL": components.endpoint,
                "AIRFLOW_API_USERNAME": "ci",
                "AIRFLOW_API_PASSWORD": PASSWORD,
            }
            publisher = Publishing(s3, s3.bucket, tmp_path / "home", settings)
            files = {"one.py": dag("one", "old"), "same.py": dag("same", "same")}
            first = publisher.succeed("publish", write_files(dags, files))
            daemon.until_synced()
            components.start()
            components.wait_until_answers()
            live = publisher.succeed("wait")
            assert ["one", "same"] == live["airflow"]["dags"]

            files |= {"one.py": dag("one", "new"), "two.py": dag("two", "new")}
            done = publisher.succeed("publish", write_files(dags, files), "--wait")
            revision = done["revision"]
            assert {
                ("one", revision, "new"),
                ("same", revision, "same"),
                ("two", revision, "new"),
            } == set(database.query(ROWS))
            assert ["one", "same", "two"] == sorted(done["airflow"]["dags"])

            broken = write_files(
                dags, files | {"two.py": b"import airflow  # dag\n1/0\n"}
            )
            ran = publisher.run("publish", broken, "--wait", "--output", "json")
            assert 4 == ran.code, ran
            assert "two.py:2: Traceback" in ran.err, ran
            assert "ZeroDivisionError: division by zero" in ran.err

            back = publisher.succeed("rollback", first["revision"], "--wait")
            assert {
                ("one", first["revision"], "old"),
                ("same", first["revision"], "same"),
            } == set(database.query(ROWS)), back
