"""A bucket on the scripted server, and a publisher's command line."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from s3_sync.release.format import read_pointer
from tests import Bodies
from tests.support.aws.writable_s3 import WritableS3
from tests.support.forks import Command
from tests.support.s3_sync.publishing import (
    PREFIX,
    Publisher,
    Publishing,
    check_every_release,
    read_release,
    write_files,
)
from tests.support.s3_sync.releases import Release, make_release

A, B, C = ({"a.py": name} for name in (b"a", b"b", b"c"))
POINTER = "dags/current.json"
# Of a server that nobody asks.
NO_AIRFLOW = {
    "AIRFLOW_API_URL": "http://127.0.0.1:9",
    "AIRFLOW_API_TOKEN": "unused",
}
OLD = make_release(A)
PRUNE = ("prune-releases", "--keep-count", "0", "--keep-for", "0")


def race(
    publisher: Publishing,
    folder: Path,
    mark: str,
    *more: str,
) -> tuple[Command, Command]:
    """
    Let two publish at once; return the one that succeeded, and the one that failed.
    """
    running = []
    for name in ("one", "two"):
        dags = write_files(folder / name, {"a.py": f"{name} {mark}".encode()})
        running.append(
            publisher.begin(["publish", str(dags), *more, "--output", "json"])
        )
    codes = [command.wait() for command in running]
    assert [0, 3] == sorted(codes), [command.err for command in running]
    return running[codes.index(0)], running[codes.index(3)]


class Site(Publisher):
    """A bucket, a publisher, and another one."""

    def __init__(self, s3: WritableS3, folder: Path) -> None:
        super().__init__(s3, s3.bucket, folder / "home")
        self.s3 = s3
        self.folder = folder
        self.prd = f"s3://{s3.bucket}/prd"
        self.other = Publisher(s3, s3.bucket, folder / "other")

    def others_publish(self, files: Bodies) -> str:
        """Let another publisher publish meanwhile; return the revision."""
        return str(self.other.publish(files)["revision"])

    def every_command(self) -> dict[str, tuple[str, ...]]:
        """Return one command of each kind on the prefix, and a promotion to it."""
        self.environment |= NO_AIRFLOW
        return {
            "publish": ("publish", str(write_files(self.dags, B))),
            "promote": ("promote", self.url, self.prd, OLD.revision),
            "promote to": ("promote", self.prd, self.url),
            "rollback": ("rollback", OLD.revision),
            "releases": ("releases",),
            "diff": ("diff", OLD.revision, OLD.revision),
            "prune-releases": PRUNE,
            "pin": ("pin", OLD.revision),
            "unpin": ("unpin", OLD.revision),
            "wait": ("wait",),
        }

    def has(self, files: Bodies, days: float = 40, **more: Any) -> Release:
        """Store a release that was published so many days ago."""
        release = make_release(files, **more)
        self.s3.put_all(
            release.objects(), PREFIX, at=datetime.now(UTC) - timedelta(days=days)
        )
        return release

    def begin_with(self, *releases: Bodies) -> None:
        """Have only these old releases; the last one is current."""
        self.s3.objects.clear()
        for files in releases:
            self.has(files)

    def bodies(self) -> Bodies:
        return {key: stored.body for key, stored in self.s3.objects.items()}

    def current(self) -> Bodies:
        """Verify every release; return the files of the current one."""
        bodies = self.bodies()
        check_every_release(bodies)
        return read_release(bodies)

    def turns(self) -> list[str]:
        """Return the revisions of the pointer and its history, newest first."""
        pointer, _ = read_pointer(
            self.s3.objects[POINTER].body, None, self.s3.bucket, PREFIX
        )
        return [turn.revision for turn in pointer.turns()]
