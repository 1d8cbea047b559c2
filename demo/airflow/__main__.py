"""
Play the story beside a real Airflow 3 and a real Airflow 2.11; exit 0 when every promise held.

`python -m demo.airflow [3] [2.11]`: without a version both, one after the other.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from werkzeug.security import generate_password_hash

from demo import console, script
from demo.airflow import descendants, end, git, permissions, realm, releases, task, versions
from demo.airflow.components import PARSE_SECONDS, Components
from demo.airflow.person import Person
from demo.airflow.stage import LINK, Stage
from demo.bucket import Bucket
from tests.support.airflow import Airflow, AirflowIsMissing, Version
from tests.support.databases import Postgres, missing_programs
from tests.support.permissions import add_user

VERSIONS: tuple[Version, ...] = ("3", "2.11")
PASSWORD = "only this demo knows it"
STEPS: tuple[script.Step[Stage], ...] = (
    ("a release is published", releases.release_is_published),
    ("a ticket appears", task.ticket_appears),
    ("Airflow starts", releases.airflow_starts),
    ("what the shell loop does", permissions.loop_does_not_help),
    ("sync-perm starts", permissions.sidecar_starts),
    ("a role comes after its DAG", permissions.role_comes_late),
    ("a task uses the ticket", task.task_uses_it),
    ("the next release", releases.release_follows),
    ("a bad release", releases.bad_release_is_refused),
    ("a rollback", releases.release_is_rolled_back),
    ("a run keeps its version", versions.run_keeps_its_version),
    ("someone edits grants", permissions.grants_are_edited),
    ("a folder for a team", permissions.folder_becomes_a_grant),
    ("nothing changes", permissions.nothing_changes),
    ("the folder comes from git", git.folder_comes_from_git),
    ("a bad and a good commit", git.commits_follow),
    ("the database goes away", end.database_goes_away),
    ("SIGTERM", end.sidecars_end),
)


def play(version: Version, home: Path) -> int:
    """
    Play the story beside one Airflow, in a folder of its own, and return the exit code.
    """
    console.heading(f"All four sidecars beside a real Airflow {version}")
    console.say(f"installing it into .airflow/{version}, where it is not there yet ...")
    try:
        airflow = Airflow.install(version)
    except AirflowIsMissing as missing:
        console.say(f"left out: {missing}")
        return 1
    with ExitStack() as stack:
        stage = set_up(airflow, home, stack)
        console.say(
            f"its metadata: {stage.database.url.partition(':')[0]}; its shortened loops: it looks"
            f" for new files every second, and reads each again after {PARSE_SECONDS} s (30 s by"
            " default)"
        )
        return script.play(STEPS, stage)


def set_up(airflow: Airflow, home: Path, stack: ExitStack) -> Stage:
    """
    Start the servers; Airflow and the sidecars are left to the steps.
    """
    server = stack.enter_context(Postgres())
    database = airflow.new_postgres(server, home)
    add_user(database, permissions.MEMBER, generate_password_hash(PASSWORD, "pbkdf2:sha256"))
    world = None if realm.missing() else realm.open_realm(home / "kerberos", stack)
    bucket = stack.enter_context(Bucket(f"airflow-{airflow.version}", ""))
    dags = home / "dags"
    given = world.of_tasks() if world else {}
    components = Components(airflow, database.url, home / "airflow", dags / LINK, given)
    person = Person(airflow.version, components.endpoint, permissions.MEMBER, PASSWORD)
    return Stage(
        airflow=airflow,
        server=server,
        database=database,
        home=home,
        stack=stack,
        components=stack.enter_context(components),
        person=person,
        realm=world,
        bucket=bucket,
        dags=dags,
    )


def main(arguments: Sequence[str]) -> int:
    """
    Play in temporary folders; nothing is left behind.
    """
    unknown = set(arguments) - set(VERSIONS)
    if unknown:
        print(f"no such Airflow here: {', '.join(sorted(unknown))}; 3 or 2.11", file=sys.stderr)
        return 2
    if lacking := missing_programs("postgres", "initdb", "psql", "pg_dump"):
        console.heading(f"All of it is left out: Airflow's metadata {lacking}")
        return 1
    script.prepare_process()
    chosen = [version for version in VERSIONS if not arguments or version in arguments]
    codes = []
    try:
        for version in chosen:
            with (
                tempfile.TemporaryDirectory(prefix="airflow-demo-") as home,
                descendants.ended(),
            ):
                codes.append(play(version, Path(home)))
    except KeyboardInterrupt:
        return 130
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
