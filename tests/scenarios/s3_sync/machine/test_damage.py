"""
Whatever happens to published files and to `.s3-sync`, the next cycles repair it; links
that another process plants are never followed.
"""

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import pytest

from tests import Plant
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.aws.fake_s3 import FakeS3, is_get
from tests.support.daemon import Daemon
from tests.support.s3_sync.releases import make_release
from tests.support.s3_sync.scripted import Running, new_content, running, staged
from tests.support.s3_sync.shelf import RELEASE
from tests.support.s3_sync.snapshots import (
    SNAPSHOT,
    A,
    bucket_of_a,
    consumed,
    current,
    overwrite,
)

__all__ = ["bucket_of_a"]

# More cycles than the burst that may be asked for: then the interval brings them.
OFTEN = {"INTERVAL": "0.1"}
LAYOUTS = {"in-place": OFTEN, "snapshot": SNAPSHOT | OFTEN}


@pytest.fixture(scope="module", params=LAYOUTS)
def one(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A daemon in each layout, for all damages."""
    with running(
        tmp_path_factory.mktemp("damaged") / "dags", LAYOUTS[request.param]
    ) as one:
        yield one


def top(target: Path) -> Path:
    """Return the folder that consumers read."""
    return target / "current" if (target / "current").is_symlink() else target


def instead(path: Path, make: Plant) -> None:
    """Replace a file or folder, if it is there, with something else."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    make(path)


@contextmanager
def paused(daemon: Daemon) -> Iterator[None]:
    """Stop a process, unless it was killed, while its volume is damaged."""
    daemon.send_signal(signal.SIGSTOP)
    yield
    daemon.send_signal(signal.SIGCONT)


def moved_away(path: Path) -> None:
    path.rename(path.with_name("moved away"))


def linked_back(folder: Path) -> None:
    """Move a folder away, and link to it from its place."""
    own = next(
        one / ".s3-sync" for one in folder.parents if (one / ".s3-sync").is_dir()
    )
    folder.rename(own / folder.name)
    folder.symlink_to(own / folder.name)


FILES: dict[str, Plant] = {
    "removed": Path.unlink,
    "folder removed": lambda path: shutil.rmtree(path.parent),
    "edited": lambda path: overwrite(path, b"print('B')\n"),
    "emptied": lambda path: overwrite(path, b""),
    "replaced": lambda path: instead(
        path, lambda one: one.write_bytes(b"print('b')\n")
    ),
    "a link": lambda path: instead(path, lambda one: one.symlink_to("/etc/passwd")),
    "a folder": lambda path: instead(path, lambda one: one.mkdir()),
    "in a linked folder": lambda path: instead(
        path.parent, lambda one: one.symlink_to("/etc")
    ),
    "in a moved folder": lambda path: linked_back(path.parent),
    "another mode": lambda path: path.chmod(0o777),
}
"""What happens to a published file."""

OWN: dict[str, Plant] = {
    "record removed": lambda own: (own / "published.json").unlink(),
    "record damaged": lambda own: (own / "published.json").write_bytes(b"nonsense"),
    "lists removed": lambda own: [path.unlink() for path in own.rglob("*managed")],
    "lists damaged": lambda own: [
        path.write_bytes(b"nonsense") for path in own.rglob("*managed")
    ],
    "staging moved": lambda own: moved_away(own / "staging"),
    "snapshots removed": lambda own: shutil.rmtree(
        own / "snapshots", ignore_errors=True
    ),
    "all removed": shutil.rmtree,
    "target removed": lambda own: shutil.rmtree(own.parent),
    "target moved": lambda own: moved_away(own.parent),
    "link removed": lambda own: (own.parent / "current").unlink(missing_ok=True),
    "link elsewhere": lambda own: (
        (own / "snapshots").exists()
        and instead(own.parent / "current", lambda link: link.symlink_to("/etc"))
    ),
}
"""What happens to what belongs to s3-sync."""


def repair(one: Running) -> None:
    """Run some cycles; the bucket's content is there, and ready."""
    for _ in range(3):  # the first one may be the one that notices
        one.daemon.sync()
    assert one.s3.files() == consumed(one.daemon.target), one.daemon.log()
    ready = one.daemon.get("/readyz")
    assert (200, None) == (ready.status, ready.json()["shortfall"])


@pytest.mark.parametrize("damage", FILES)
def test_a_damaged_file_is_downloaded_again(one: Running, damage: str) -> None:
    one.s3.forget()
    with paused(one.daemon):
        FILES[damage](top(one.daemon.target) / "pkg/b.py")
    repair(one)

    assert len(one.s3.seen(is_get())) <= 1 + ("folder" in damage)


@pytest.mark.sample(22)
@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("damage", OWN)
def test_what_belongs_to_s3_sync_is_repaired(
    one: Running, damage: str, is_running: bool
) -> None:
    own = one.daemon.target / ".s3-sync"
    if not is_running:
        one.daemon.kill()
    with paused(one.daemon):
        OWN[damage](own)
    if not is_running:
        one.daemon.start().wait_until_synced()
    repair(one)
    one.s3.put("dags/a.py", new_content())
    repair(one)

    assert [] == staged(one.daemon.target)
    for moved in (own / "moved away", one.daemon.target.with_name("moved away")):
        shutil.rmtree(moved, ignore_errors=True)


PLANTED = (
    "pkg", ".s3-sync", ".s3-sync/staging", ".s3-sync/staging/1-0.part", ".s3-sync/managed",
    ".s3-sync/.airflowignore", ".s3-sync/published.json", ".s3-sync/snapshots",
    ".s3-sync/snapshots/{current}", ".s3-sync/snapshots/{current}.managed",
    ".s3-sync/snapshots/{current}/pkg", "current",
)  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_link_is_never_followed(
    one: Running, planted: str, tmp_path: Path
) -> None:
    target = one.daemon.target
    is_snapshot = (target / "current").is_symlink()
    if ("current" in planted or "snapshots" in planted) and not is_snapshot:
        pytest.skip("only snapshots have it")
    (tmp_path / "b.py").write_bytes(b"victim")
    place = planted.format(current=is_snapshot and current(target))
    with paused(one.daemon):
        instead(target / place, lambda path: path.symlink_to(tmp_path))
    for path in ("a.py", "pkg/b.py"):
        one.s3.put(f"dags/{path}", new_content())
    with suppress(AssertionError):
        repair(one)
    one.s3.put("dags/pkg/b.py", new_content())
    if planted == "pkg" and is_snapshot:  # in DEST_PATH itself it is another owner's
        (target / "pkg").unlink()
    repair(one)

    assert {"b.py": b"victim"} == {
        path.name: path.read_bytes() for path in tmp_path.iterdir()
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_repairs_damage_among_a_thousand_files(
    s3: FakeS3, target: Path, start: StartDaemon, layout: str
) -> None:
    """
    Within ten cycles; of five hundred, in the next one. A cycle that has not noticed it
    (half of them) publishes all the same.
    """
    many = {f"team_{n % 900}/dag_{n}.py": b"print(%d)\n" % n for n in range(1000)}
    s3.put_all(dict(islice(many.items(), 500 - len(A))), "dags/")
    daemon = start(LAYOUTS[layout]).until_synced()
    for number in (7, 48, 203):
        (top(target) / f"team_{number}/dag_{number}.py").unlink()
        daemon.sync()
        assert s3.files() == consumed(target)
    s3.put_all(many, "dags/")
    daemon.sync()

    # again, without others that would find it
    for damages in (FILES, ["in a moved folder"]):
        for number, damage in enumerate(damages, 500):
            FILES[damage](top(target) / f"team_{number}/dag_{number}.py")
            s3.put("dags/new.py", b"%d" % number)
            daemon.sync()
        for _ in range(10):
            daemon.sync()

    assert [] == daemon.find_events("cycle_failed")
    assert s3.files() == consumed(target)


def test_repairs_damage_to_a_release_within_thirty_cycles(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    files = {f"dag_{number}.py": b"print(%d)\n" % number for number in range(1000)}
    s3.put_all(make_release(files).objects(), "dags/")
    daemon = start(RELEASE, interval="0.1").until_synced()

    for name in ("dag_1.py", "dag_700.py"):  # the first is just inspected
        overwrite(target / "current" / name, b"")
        for _ in range(30):
            daemon.sync()
        assert files == consumed(target)
