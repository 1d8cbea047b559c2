"""
Plays the steps beside a real Airflow 3 and a real Airflow 2.11; exits with 0 if all
checks passed.

`python -m demo.airflow [3] [2.11]`: without arguments, it plays both versions in turn.
"""

import ctypes
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from werkzeug.security import generate_password_hash

from demo import script
from demo.airflow import story, ticket
from demo.airflow.components import PARSE_SECONDS, Components, Person
from demo.airflow.story import Stage
from tests.support.airflow.databases import Postgres, missing_programs
from tests.support.airflow.installed import Airflow, AirflowIsMissing, Version
from tests.support.airflow.permissions import add_user
from tests.support.airflow.sync_perm import descendants_of, signal_all
from tests.support.aws.writable_s3 import WritableS3

VERSIONS: tuple[Version, ...] = ("3", "2.11")
PASSWORD = "only this demo knows it"
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def play(version: Version, home: Path) -> int:
    """
    Play the steps beside one Airflow, in a separate folder, and return the exit code.
    """
    script.heading(f"All four sidecars beside a real Airflow {version}")
    script.say(
        f"installing Airflow into .airflow/{version}, unless it is already installed ..."
    )
    try:
        airflow = Airflow.install(version)
    except AirflowIsMissing as missing:
        script.say(f"skipped: {missing}")
        return 1
    script.say(
        f"Airflow searches for new files every second, and parses each every {PARSE_SECONDS} s"
    )
    with ExitStack() as stack:
        return script.play(story.steps(airflow), set_up(airflow, home, stack))


def set_up(airflow: Airflow, home: Path, stack: ExitStack) -> Stage:
    """
    Start the servers; the steps start Airflow and the sidecars.
    """
    server = stack.enter_context(Postgres())
    database = airflow.new_postgres(server, home)
    add_user(database, story.MEMBER, generate_password_hash(PASSWORD, "pbkdf2:sha256"))
    realm = None if ticket.missing() else ticket.open_realm(home / "kerberos", stack)
    s3 = stack.enter_context(WritableS3(f"airflow-{airflow.version}"))
    dags = home / "dags"
    given = realm.of_tasks() if realm else {}
    components = stack.enter_context(
        Components(airflow, database.url, home / "airflow", dags / "current", given)
    )
    person = Person(components, story.MEMBER, PASSWORD)
    return Stage(s3, dags, stack, database, home, components, person, realm)


@contextmanager
def no_process_left() -> Iterator[None]:
    """
    Adopt orphaned processes, and kill all remaining descendants: Airflow's components
    put their workers into process groups of their own.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        while left := descendants_of(os.getpid()):
            signal_all(left, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(-1, 0)


def main(arguments: Sequence[str]) -> int:
    """
    Play in temporary folders, which are removed afterwards.
    """
    if unknown := set(arguments) - set(VERSIONS):
        print(
            f"unknown Airflow version: {sorted(unknown)}; use 3 or 2.11",
            file=sys.stderr,
        )
        return 2
    if lacking := missing_programs("postgres", "initdb", "psql", "pg_dump"):
        script.heading(f"Skipped: Airflow's metadata {lacking}")
        return 1
    script.prepare_process()
    codes = []
    try:
        for version in (
            version for version in VERSIONS if version in (arguments or VERSIONS)
        ):
            made = tempfile.TemporaryDirectory(prefix="airflow-demo-")
            with made as home, no_process_left():
                codes.append(play(version, Path(home)))
    except KeyboardInterrupt:
        return 130
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
