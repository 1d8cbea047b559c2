"""
Take the screenshots of docs/reference/status-page.md: `python -m docs.screenshots`.

It runs real sidecars against real servers on loopback, one after another, working or failing. It
takes a minute and needs the programs of all tests (chromium, git, a KDC, PostgreSQL, Airflow 2.11).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.airflow.databases import Postgres
from tests.support.airflow.installed import Airflow
from tests.support.airflow.sync_perm import SyncPerm
from tests.support.aws.fake_s3 import FakeS3
from tests.support.browser import Browser
from tests.support.daemon import VENV_BIN, SidecarProcess
from tests.support.git.git_sync import GIT_SYNC, git_site
from tests.support.kerberos.kdc import Kdc
from tests.support.kerberos.site import site
from tests.support.s3_sync.releases import ORIGIN
from tests.support.s3_sync.shelf import Shelf, release_daemon
from tests.support.waiting import wait_until

REFERENCE = Path(__file__).parent / "reference"
FILES = {"sales.py": b"VALUE = 1\n", "lib/common.py": b"UNITS = ('EUR', 'USD')\n"}
COMMITTED = ORIGIN._replace(
    by="jenkins",
    commit="8c1f0b7d5a2e4936b1d0c7f85e6a9d3b2f4c8e10",
    branch="main",
    author="Ada Example",
    message="Add the sales report",
    ci_url="https://jenkins.example.com/job/dags/42/",
)
FAILURES = 3
POD = {
    "POD_NAME": "airflow-dag-processor-7c9d5b8f4-x2x9k",
    "POD_NAMESPACE": "airflow",
    "NODE_NAME": "ip-10-0-12-34.ec2.internal",
}
WEBSERVER = {**POD, "POD_NAME": "airflow-webserver-6d5f8c9b7-m4q8z"}
WORKER = {**POD, "POD_NAME": "airflow-worker-0"}


@contextmanager
def s3_sync(folder: Path) -> Iterator[SidecarProcess]:
    """
    Yield s3-sync with a published release.
    """
    with FakeS3() as s3:
        Shelf(s3).publish(FILES, origin=COMMITTED)
        with release_daemon(s3, folder / "dags", POD, interval="10s") as daemon:
            daemon.wait_until_synced()
            daemon.sync()
            yield daemon


@contextmanager
def s3_sync_failing(folder: Path) -> Iterator[SidecarProcess]:
    """
    Yield s3-sync with a published release, while S3 is down.
    """
    with FakeS3() as s3:
        Shelf(s3).publish(FILES, origin=COMMITTED)
        with release_daemon(s3, folder / "dags", POD, interval="1s") as daemon:
            daemon.wait_until_synced()
            s3.stop()
            yield daemon


@contextmanager
def sync_perm_failing(folder: Path) -> Iterator[SidecarProcess]:
    """
    Yield sync-perm with a DAG that uses a missing role, while the database is down.
    """
    airflow = Airflow.install("2.11")
    with Postgres() as postgres:
        database = airflow.new_postgres(postgres, folder / "home")
        airflow.write_dags(database, folder / "home", {"sales": {"analysts": ["can_read"]}})
        with SyncPerm(airflow, database.url, folder / "supervisor", WEBSERVER) as daemon:
            daemon.wait_until_good()
            postgres.stop()
            yield daemon


@contextmanager
def kerberos_failing(folder: Path) -> Iterator[SidecarProcess]:
    """
    Yield kerberos with a valid ticket, while the KDC is down.
    """
    with Kdc(folder / "kdc") as kdc, site(kdc, "airflow", "10h", "7d") as here:
        daemon = here.publish(**WORKER)
        kdc.stop()
        daemon.sighup()
        yield daemon


@contextmanager
def git_sync_wrapper_failing(folder: Path) -> Iterator[SidecarProcess]:
    """
    Yield git-sync-wrapper with a published commit, while the git server is down.
    """
    programs = folder / "bin"
    programs.mkdir()
    (programs / "git-sync").symlink_to(GIT_SYNC)
    path = f"{programs}:{VENV_BIN}:/usr/local/bin:/usr/bin:/bin"
    with git_site(folder) as here:
        here.repository.commit({"sales.py": "VALUE = 1\n"}, author="Ada Example")
        daemon = here.publish(PATH=path, GIT_SYNC_WRAPPER_GIT_SYNC=None, **POD)
        message, author = "Add the sales report", "Ada Example"
        here.repository.commit(FILES, message=message, author=author)
        here.wait_until_shown(here.repository.head(), daemon)
        here.server.stop()
        yield daemon


def main() -> None:
    """
    Take all screenshots.
    """
    makers = (
        s3_sync,
        s3_sync_failing,
        sync_perm_failing,
        kerberos_failing,
        git_sync_wrapper_failing,
    )
    with tempfile.TemporaryDirectory(prefix="pages-") as made:
        folder = Path(made)
        with Browser(folder) as browser:
            for maker in makers:
                home = folder / maker.__name__
                home.mkdir()
                name = f"status-page-{maker.__name__.replace('_', '-')}.png"
                with maker(home) as daemon:
                    if "failing" in name:
                        _wait_for_failures(daemon)
                    host, port = daemon.address()
                    browser.open(f"http://{host}:{port}/", width=880)
                    browser.picture(REFERENCE / name)
                    sys.stdout.write(f"took {name}\n")


def _wait_for_failures(daemon: SidecarProcess) -> None:
    wait_until(
        lambda: daemon.status()["consecutive_failures"] >= FAILURES,
        f"{FAILURES} failures in a row",
        timeout_seconds=60,
    )


if __name__ == "__main__":
    main()
