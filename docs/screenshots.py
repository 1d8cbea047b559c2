"""
Take the screenshots of docs/reference/status-page.md: `python -m docs.screenshots`.

It runs s3-sync with a release, working and failing, and needs chromium.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.aws.fake_s3 import FakeS3
from tests.support.browser import Browser
from tests.support.daemon import SidecarProcess
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


def main() -> None:
    """
    Take all screenshots.
    """
    with tempfile.TemporaryDirectory(prefix="pages-") as made:
        folder = Path(made)
        with Browser(folder) as browser:
            for maker in (s3_sync, s3_sync_failing):
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
