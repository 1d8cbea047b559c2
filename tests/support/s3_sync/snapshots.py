"""
Support for tests of the snapshot layout: a bucket that changes in one step, and checks.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from tests import Bodies
from tests.support.aws.fake_s3 import FakeS3, Stored
from tests.support.daemon import Daemon
from tests.support.s3_sync.scripted import published
from tests.support.s3_sync.target_model import read_tree
from tests.support.waiting import wait_until

# Two revisions that share files.
A = {
    "a.py": b"a of A",
    "b.py": b"b of both",
    "pkg/c.py": b"c of A",
    "pkg/sub/d.py": b"d of both",
    "only/in_a.py": b"only in A",
}
B = A | {"a.py": b"a of B", "pkg/c.py": b"c of B, longer", "new/in_b.py": b"only in B"}
del B["only/in_a.py"]

SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot"}
OURS = {".airflowignore", "lock", "published.json", "snapshots", "staging"}


class SwappingS3(FakeS3):
    """A bucket whose objects all change in one step, between two answers."""

    def __init__(
        self, files: Mapping[str, bytes] | None = None, age_seconds: float = 0.0
    ) -> None:
        super().__init__()
        self.swap(files or {}, age_seconds)

    def swap(self, files: Mapping[str, bytes], age_seconds: float = 0.0) -> None:
        """
        Replace the content under `dags/` with these files.

        Args:
            age_seconds: time since they were written.
        """
        written = self.clock() - timedelta(seconds=age_seconds)
        self.objects = {
            f"dags/{path}": Stored(body, hashlib.md5(body).hexdigest(), written)
            for path, body in files.items()
        }


@pytest.fixture(name="s3")
def bucket_of_a() -> Iterator[SwappingS3]:
    """A bucket with revision A."""
    with SwappingS3(A) as s3:
        yield s3


def snapshots(target: Path) -> set[str]:
    """Return the revisions that have a snapshot."""
    return {
        name
        for name in os.listdir(target / ".s3-sync/snapshots")
        if name[0] != "." and not name.endswith(".managed")
    }


def current(target: Path) -> str:
    """
    Return the revision that `current` points to.

    Raises:
        AssertionError: It is not a link of s3-sync.
    """
    path = os.readlink(target / "current")
    folder, _, revision = path.rpartition("/")
    assert folder == ".s3-sync/snapshots", path
    return revision


def shown(target: Path) -> Bodies:
    """
    Return the files that a consumer finds through `current`; all must be regular files.
    """
    return read_tree(Path(os.path.realpath(target / "current", strict=True)))


def consumed(target: Path) -> Bodies:
    """Return the files that a consumer finds in either layout."""
    return shown(target) if os.path.lexists(target / "current") else published(target)


def snapshot_leftovers(target: Path) -> list[str]:
    """
    Return unexpected entries of the target after a complete cycle, without foreign
    files.
    """
    hidden = target / ".s3-sync"
    found = [str(path) for path in hidden.iterdir() if path.name not in OURS]
    found += [str(path) for path in (hidden / "staging").iterdir()]
    found += [
        str(path)
        for path in target.iterdir()
        if path.name not in (".s3-sync", "current")
    ]
    kept = snapshots(target)
    wanted = kept | {f"{name}.managed" for name in kept}
    return found + [
        name
        for name in os.listdir(hidden / "snapshots")
        if name.startswith(".") or name not in wanted
    ]


def count_of(daemon: Daemon, name: str, **labels: str) -> float:
    """Return the value of a metric; 0 if it does not exist yet."""
    pairs = {**labels, "sidecar": "s3-sync"}.items()
    inner = ",".join(f'{label}="{value}"' for label, value in sorted(pairs))
    return daemon.metrics().get(f"{name}{{{inner}}}", 0.0)


def wait_for_partial_cycles(daemon: Daemon) -> None:
    """Wait until three more cycles have fallen short."""
    name = "sidecar_cycles_total"
    before = count_of(daemon, name, result="partial")
    wait_until(
        lambda: count_of(daemon, name, result="partial") >= before + 3, "three more"
    )


def wait_until_shown(daemon: Daemon, files: Mapping[str, bytes]) -> None:
    """Run cycles until `current` shows exactly these files."""
    for _ in range(10):
        # `current` is missing or a foreign link
        with suppress(AssertionError, OSError):
            if shown(daemon.target) == files:
                return
        daemon.sync()
    assert shown(daemon.target) == files, daemon.log()


def overwrite(path: Path, content: bytes) -> None:
    """Edit a file in place, as root or its owner can."""
    path.chmod(0o644)
    path.write_bytes(content)
