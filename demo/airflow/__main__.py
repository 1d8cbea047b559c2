"""
Plays the steps beside a real Airflow 3 and a real Airflow 2.11; exits with 0 if all checks passed.

`python -m demo.airflow [3] [2.11]`: without arguments, it plays both versions in turn.
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
from tests.support.airflow.databases import Postgres, missing_programs
from tests.support.airflow.installed import Airflow, AirflowIsMissing, Version
from tests.support.airflow.permissions import add_user

VERSIONS: tuple[Version, ...] = ("3", "2.11")
PASSWORD = "only this demo knows it"
STEPS: tuple[script.Step[Stage], ...] = (
    ("first release", releases.release_is_published),
    ("first ticket", task.ticket_appears),
    ("Airflow starts", releases.airflow_starts),
    ("the shell loop", permissions.loop_does_not_help),
    ("sync-perm starts", permissions.sidecar_starts),
    ("a role created late", permissions.role_comes_late),
    ("a task with a ticket", task.task_uses_it),
    ("next release", releases.release_follows),
    ("a bad release", releases.bad_release_is_refused),
    ("a rollback", releases.release_is_rolled_back),
    ("a run keeps its version", versions.run_keeps_its_version),
    ("edited grants", permissions.grants_are_edited),
    ("a folder for a team", permissions.folder_becomes_a_grant),
    ("idle cost", permissions.nothing_changes),
    ("switch to git", git.folder_comes_from_git),
    ("a bad and a good commit", git.commits_follow),
    ("database outage", end.database_goes_away),
    ("SIGTERM", end.sidecars_end),
)


def play(version: Version, home: Path) -> int:
    """
    Play the steps beside one Airflow, in a separate folder, and return the exit code.
    """
    console.heading(f"All four sidecars beside a real Airflow {version}")
    console.say(f"installing Airflow into .airflow/{version}, unless it is already installed ...")
    try:
        airflow = Airflow.install(version)
    except AirflowIsMissing as missing:
        console.say(f"skipped: {missing}")
        return 1
    with ExitStack() as stack:
        stage = set_up(airflow, home, stack)
        console.say(
            f"metadata database: {stage.database.url.partition(':')[0]}; shortened intervals:"
            " Airflow searches\nfor new files every second, and parses each file every"
            f" {PARSE_SECONDS} s (default: 30 s)"
        )
        return script.play(STEPS, stage)


def set_up(airflow: Airflow, home: Path, stack: ExitStack) -> Stage:
    """
    Start the servers; the steps start Airflow and the sidecars.
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
    Play in temporary folders, which are removed afterwards.
    """
    unknown = set(arguments) - set(VERSIONS)
    if unknown:
        names = ", ".join(sorted(unknown))
        print(f"unknown Airflow version: {names}; use 3 or 2.11", file=sys.stderr)
        return 2
    if lacking := missing_programs("postgres", "initdb", "psql", "pg_dump"):
        console.heading(f"Skipped: Airflow's metadata {lacking}")
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
