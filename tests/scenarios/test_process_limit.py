"""
The limit of processes of a pod or a node is used up: the probes of each sidecar are
still answered.

The kubelet would otherwise kill a healthy container. A start says what it lacks.
"""

import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.scenarios.sync_perm.standin import CONN, StandIn, small
from tests.support.airflow.databases import Postgres, run_server, skip_without_postgres
from tests.support.airflow.permissions import add_role
from tests.support.airflow.sync_perm import SYNC_PERM
from tests.support.daemon import S3_SYNC, SidecarProcess
from tests.support.git.git_sync import WRAPPER
from tests.support.kerberos.site import KERBEROS_SIDECAR
from tests.support.machine.users import as_user

# The limit counts the processes of a uid: no other test, and no other suite, may use
# this one.
UID = random.randrange(50_001, 60_000)
# Root may lack the capability to limit the processes of others.
NOBODY = ["setpriv", f"--reuid={UID}", "--regid=0", "--clear-groups"]
# Settings with which every cycle fails.
S3_SETTINGS = """
AWS_BUCKET=box KEY_PATH=dags DEST_PATH=FOLDER/dags AWS_ENDPOINT_URL=http://127.0.0.1:1
AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b AWS_REGION=us-east-1
"""
GIT_SETTINGS = """
GITSYNC_REPO=http://127.0.0.1:1/dags.git GITSYNC_ROOT=FOLDER/root GITSYNC_MAX_FAILURES=-1
GIT_SYNC_WRAPPER_GIT_SYNC=/bin/false
"""
KERBEROS_SETTINGS = """
KERBEROS_KEYTAB=FOLDER/airflow.keytab KERBEROS_PRINCIPAL=airflow@EXAMPLE.COM
KERBEROS_CCACHE=FOLDER/ccache
"""
SIDECARS = [
    (S3_SYNC, "S3_SYNC", S3_SETTINGS),
    (WRAPPER, "GIT_SYNC_WRAPPER", GIT_SETTINGS),
    (KERBEROS_SIDECAR, "KERBEROS", KERBEROS_SETTINGS),
    (SYNC_PERM, "SYNC_PERM", ""),
]
Sidecar = tuple[Path, str, str]
Make = Callable[[Path, str, str], SidecarProcess]


@pytest.fixture
def make() -> Iterator[Make]:
    """
    A function that describes a sidecar of another user, with a folder that it can write
    to.
    """
    folder = Path(tempfile.mkdtemp(prefix="limit-"))
    folder.chmod(0o777)
    (folder / "home").mkdir()
    (folder / "home").chmod(0o777)

    def made(program: Path, prefix: str, settings: str) -> SidecarProcess:
        words = settings.replace("FOLDER", str(folder)).split()
        given = dict(word.split("=", 1) for word in words)
        if program == SYNC_PERM:
            url = given.pop(CONN, "postgresql://airflow:a@127.0.0.1:1/airflow")
            given |= StandIn.make(folder / "airflow").environment(url, folder)
        own = {
            "INTERVAL": given.pop("INTERVAL", "1h"),
            f"{prefix}_HTTP_BIND": "127.0.0.1:0",
            "TMPDIR": str(folder),
        }
        run = as_user(folder / "bin", program, UID, 0)
        return SidecarProcess(run, {**given, **own}, folder / "home")

    yield made
    shutil.rmtree(folder)


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A PostgreSQL of this test."""
    skip_without_postgres()
    yield from run_server(Postgres())


@pytest.mark.parametrize("sidecar", SIDECARS, ids=lambda sidecar: sidecar[1])
def test_probes_are_answered_while_no_process_and_no_thread_can_be_started(
    make: Make, sidecar: Sidecar
) -> None:
    """The kernel limits the processes of each user, and no process of root."""
    with make(*sidecar) as daemon:
        daemon.wait_for_event("cycle_failed")
        before = [daemon.get(path).status for path in ("/healthz", "/readyz")]
        subprocess.run(
            [*NOBODY, "prlimit", f"--pid={daemon.pid}", "--nproc=1"], check=True
        )
        after = len(daemon.events)
        daemon.sighup()
        failed = daemon.wait_for_event("cycle_failed", after=after)

        # The others fail before they start anything.
        assert (sidecar[0] == WRAPPER) == (failed["reason"] == "process_limit")
        for _ in range(3):
            answers = [daemon.get(path) for path in ("/healthz", "/readyz")]
            assert before == [answer.status for answer in answers]
            assert answers[1].json()["reason"]
        assert 200 == daemon.get("/metrics").status
        assert 200 == daemon.get("/").status


def test_a_pass_without_a_process_for_airflow_says_so_and_goes_on_later(
    make: Make, server: Postgres
) -> None:
    database = small(server)
    with make(SYNC_PERM, "SYNC_PERM", f"{CONN}={database.url} INTERVAL=1s") as daemon:
        daemon.wait_until_ready(60)
        limited = [*NOBODY, "prlimit", f"--pid={daemon.pid}"]
        subprocess.run([*limited, "--nproc=1:"], check=True)
        add_role(database, "team")

        daemon.wait_for(lambda: daemon.reason() == "process_limit", "it is told")
        assert "podPidsLimit" in daemon.status()["advice"]
        subprocess.run([*limited, "--nproc=4096:"], check=True)
        daemon.wait_for(lambda: daemon.reason() is None, "it is over")


@pytest.mark.parametrize("sidecar", SIDECARS, ids=lambda sidecar: sidecar[1])
def test_a_start_without_any_thread_ends_with_one_clear_error(
    make: Make, sidecar: Sidecar
) -> None:
    """sync-perm starts Airflow before a thread."""
    daemon = make(*sidecar)
    daemon.wrapper = ("prlimit", "--nproc=1")  # it holds for another user than root
    with daemon:
        end = daemon.wait_for_exit(60)

    errors = [
        event for event in daemon.events if event["level"] in ("warning", "error")
    ]
    assert ["sidecar_gave_up"] == [event["event"] for event in errors], daemon.log()
    assert (3, "process_limit") == (end.code, errors[0]["reason"])
    assert "podPidsLimit" in errors[0]["advice"]
    assert [] == daemon.stray_lines
