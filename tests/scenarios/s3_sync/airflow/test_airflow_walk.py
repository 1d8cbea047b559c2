"""Airflow's walk over its DAG folder finds each DAG once, and no file of s3-sync."""

import io
import json
import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.airflow.installed import Airflow, Version
from tests.support.daemon import Daemon
from tests.support.s3_sync.scripted import daemon_for
from tests.support.s3_sync.snapshots import SwappingS3, snapshots

DAG = b"from airflow import DAG\nwith DAG('%s'):\n    pass\n"
DAGS = {
    f"{name}.py": DAG % name.encode()
    for name in (
        "sales",
        "pkg/orders",
        "pkg/deep/down/stock",
        # names that s3-sync uses in its own folder
        "tree/forest",
        "snapshots/photo",
        "staging/stage",
        "staged/play",
        "current/events",
        ".hidden/secret",
    )
}
OTHERS = {
    ".airflowignore": b"skipped  # both syntaxes read this alike\n",
    "skipped/dag.py": DAG % b"skipped",
    "pkg/skipped/deep/dag.py": DAG % b"skipped",
    "lib.py": b"VALUE = 1\n",
    "README.md": b"dag airflow\n",
}
WALK = """
import json, sys
from airflow.utils.file import list_py_file_paths
def walk(folder):
    try:
        return sorted(list_py_file_paths(folder, safe_mode=True))
    except RuntimeError as error:
        return str(error)
print(json.dumps([walk(folder) for folder in sys.argv[1:]]))
"""


def archive() -> bytes:
    """Return a zip archive with a DAG."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        zipped.writestr("inside.py", DAG % b"inside")
    return content.getvalue()


FILES = DAGS | OTHERS | {"packed.zip": archive()}
PATHS = {*DAGS, "packed.zip"}


@dataclass(frozen=True)
class Volume:
    """A target after several revisions, and the DAG folder of its consumers."""

    target: Path
    folder: Path


@pytest.fixture(
    scope="module", params=[("in-place", "off"), ("snapshot", "off"), ("snapshot", "syntax")]
)
def volume(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Volume:
    """A target with old snapshots; with a gate also with a refused revision."""
    target = tmp_path_factory.mktemp("volume") / "dags"
    layout, gate = request.param
    settings = {"S3_SYNC_LAYOUT": layout, "S3_SYNC_GATE": gate}
    with SwappingS3() as s3:
        revisions: list[Mapping[str, bytes]] = [
            FILES | {f"old{number}.py": DAG % b"old", "sales.py": DAG % b"%d" % number}
            for number in range(2)
        ]
        s3.swap(revisions[0])
        with daemon_for(s3, target, settings=settings) as daemon:
            daemon.wait_until_synced()
            for files in [*revisions[1:], FILES]:
                s3.swap(files)
                daemon.sync()
            if gate == "syntax":
                refuse(daemon, s3)
    assert layout == "in-place" or len(snapshots(target)) == 3
    return Volume(target, target / "current" if layout == "snapshot" else target)


@contextmanager
def without_our_ignore_file(target: Path) -> Iterator[None]:
    """Move `.s3-sync/.airflowignore` away temporarily."""
    place, aside = target / ".s3-sync/.airflowignore", target / ".s3-sync/lock.aside"
    place.rename(aside)
    try:
        yield
    finally:
        aside.rename(place)


def refuse(daemon: Daemon, s3: SwappingS3) -> None:
    """Let the gate refuse a revision with an additional DAG."""
    s3.swap(FILES | {"sales.py": b"airflow dag (\n", "pkg/more.py": DAG % b"more"})
    daemon.sync()
    assert daemon.find_events("revision_refused")
    assert not list((daemon.target / ".s3-sync").glob("*/pkg/more.py")), "they are removed"


@pytest.fixture(scope="module", params=["2.11", "3"])
def airflow(request: pytest.FixtureRequest) -> Airflow:
    """A real Airflow; the first test installs it, which takes minutes."""
    version: Version = request.param
    if version != "2.11" and not request.config.getoption("--full"):
        pytest.skip("other versions of Airflow run with make test-full")
    return Airflow.install_or_skip(version)


def walk(airflow: Airflow, syntax: str, home: Path, *folders: Path) -> list[list[str] | str]:
    """Return the files that the walk finds in each folder, or the error that ends it."""
    said = subprocess.run(
        [airflow.bin / "python", "-c", WALK, *folders],
        env=airflow.environment(None, home) | {"AIRFLOW__CORE__DAG_IGNORE_FILE_SYNTAX": syntax},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: list[list[str] | str] = json.loads(said.stdout.splitlines()[-1])
    return found


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("syntax", ["regexp", "glob"])
def test_airflow_finds_each_dag_exactly_once(
    airflow: Airflow, volume: Volume, syntax: str, tmp_path: Path
) -> None:
    """
    Users may set the DAG folder or the target itself. For `.airflowignore` Airflow 2 uses the first
    syntax by default, Airflow 3 the second.

    Without the `.airflowignore` of s3-sync the walk goes wrong if `.s3-sync` has Python files; in
    place it has none.
    """
    would_mislead = any((volume.target / ".s3-sync").rglob("*.py"))

    found = walk(airflow, syntax, tmp_path, volume.folder, volume.target)
    with without_our_ignore_file(volume.target):
        [without] = walk(airflow, syntax, tmp_path, volume.target)

    assert [sorted(str(volume.folder / path) for path in PATHS)] * 2 == found
    assert would_mislead == (isinstance(without, str) or len(without) > len(PATHS))
