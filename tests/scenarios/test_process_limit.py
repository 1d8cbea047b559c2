"""
The limit of processes of a pod or a node is used up: the probes of each sidecar are still answered.

The kubelet would otherwise kill a healthy container. A start says what it lacks.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.scenarios.sync_perm.standin import StandIn
from tests.support.airflow.sync_perm import SYNC_PERM
from tests.support.daemon import S3_SYNC, SidecarProcess
from tests.support.git.git_sync import WRAPPER
from tests.support.kerberos.site import KERBEROS_SIDECAR
from tests.support.machine.users import as_user

NOWHERE = "127.0.0.1:1"
UID = 50_000
# Root may lack the capability to limit the processes of others.
NOBODY = ["setpriv", f"--reuid={UID}", "--regid=0", "--clear-groups"]
Environment = dict[str, str | None]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can enter and write to."""
    folder = Path(tempfile.mkdtemp(prefix="limit-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def s3_sync(folder: Path) -> Environment:
    return {
        "AWS_BUCKET": "box",
        "AWS_ENDPOINT_URL": f"http://{NOWHERE}",
        "KEY_PATH": "dags",
        "DEST_PATH": str(folder / "dags"),
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
    }


def git_sync_wrapper(folder: Path) -> Environment:
    return {
        "GITSYNC_REPO": f"http://{NOWHERE}/dags.git",
        "GITSYNC_ROOT": str(folder / "root"),
        "GITSYNC_MAX_FAILURES": "-1",
        "GIT_SYNC_WRAPPER_GIT_SYNC": "/bin/false",
    }


def kerberos(folder: Path) -> Environment:
    return {
        "KERBEROS_KEYTAB": str(folder / "airflow.keytab"),
        "KERBEROS_PRINCIPAL": "airflow@EXAMPLE.COM",
        "KERBEROS_CCACHE": str(folder / "ccache"),
    }


def sync_perm(folder: Path) -> Environment:
    url = f"postgresql://airflow:a@{NOWHERE}/airflow"
    found: Environment = {**StandIn.make(folder / "airflow").environment(url, folder)}
    return found


ARGUMENTS = ("program", "prefix", "settings")
SIDECARS = [
    (S3_SYNC, "S3_SYNC_", s3_sync),
    (WRAPPER, "GIT_SYNC_WRAPPER_", git_sync_wrapper),
    (KERBEROS_SIDECAR, "KERBEROS_", kerberos),
    (SYNC_PERM, "SYNC_PERM_", sync_perm),
]


@pytest.mark.parametrize(ARGUMENTS, SIDECARS)
def test_probes_are_answered_while_no_process_and_no_thread_can_be_started(
    folder: Path, program: Path, prefix: str, settings: Callable[[Path], Environment]
) -> None:
    """The kernel limits the processes of each user, and no process of root."""
    environment = settings(folder) | {"INTERVAL": "1h", f"{prefix}HTTP_BIND": "127.0.0.1:0"}
    home = folder / "home"
    home.mkdir(mode=0o777)
    run = as_user(folder / "bin", program, UID, 0)
    with SidecarProcess(run, environment | {"TMPDIR": str(folder)}, home) as daemon:
        daemon.wait_for_event("cycle_failed")
        before = [daemon.get(path).status for path in ("/healthz", "/readyz")]
        limit = ["prlimit", f"--pid={daemon.pid}", "--nproc=1"]
        subprocess.run([*NOBODY, *limit], check=True)
        after = len(daemon.events)
        daemon.sighup()
        daemon.wait_for_event("cycle_failed", after=after)

        for _ in range(3):
            answers = [daemon.get(path) for path in ("/healthz", "/readyz")]
            assert before == [answer.status for answer in answers]
            assert answers[1].json()["reason"]
        assert 200 == daemon.get("/metrics").status
        assert 200 == daemon.get("/").status


@pytest.mark.parametrize(ARGUMENTS, SIDECARS[:3])  # sync-perm runs Airflow before
def test_a_start_without_any_thread_ends_with_one_clear_error(
    folder: Path, program: Path, prefix: str, settings: Callable[[Path], Environment]
) -> None:
    environment = settings(folder) | {f"{prefix}HTTP_BIND": "127.0.0.1:0", "TMPDIR": str(folder)}
    home = folder / "home"
    home.mkdir(mode=0o777)
    run = as_user(folder / "bin", program, UID, 0)
    daemon = SidecarProcess(run, environment, home)
    daemon.wrapper = ("prlimit", "--nproc=1")  # it holds for another user than root
    with daemon:
        end = daemon.wait_for_exit(60)

    errors = [event for event in daemon.events if event["level"] in ("warning", "error")]
    assert ["sidecar_gave_up"] == [event["event"] for event in errors], daemon.log()
    assert (3, "process_limit") == (end.code, errors[0]["reason"])
    assert "podPidsLimit" in errors[0]["advice"]
    assert [] == daemon.stray_lines
