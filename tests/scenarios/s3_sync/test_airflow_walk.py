"""Airflow's walk over its DAG folder finds each DAG exactly once, and nothing of ours."""

import io
import json
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.support.airflow_walk import RecursiveLoop, Syntax, find_dag_files
from tests.support.daemon import Daemon
from tests.support.scripted import daemon_for
from tests.support.snapshots import SwappingS3, snapshots

ENVIRONMENT = Path(__file__).parents[3] / "scripts/airflow-environment"
DAG = b"from airflow import DAG\nwith DAG('%s'):\n    pass\n"
DAGS = {
    f"{name}.py": DAG % name.encode()
    for name in (
        "sales",
        "pkg/orders",
        "pkg/deep/down/stock",
        # names of ours, which are the user's here
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
try:
    found = list_py_file_paths(sys.argv[1], safe_mode=True)
except RuntimeError as error:
    found = str(error)
print(json.dumps(found))
"""

Walk = Callable[[Path, Syntax], list[str]]


def archive() -> bytes:
    """A zip archive with a DAG."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        zipped.writestr("inside.py", DAG % b"inside")
    return content.getvalue()


FILES = DAGS | OTHERS | {"packed.zip": archive()}
PATHS = {*DAGS, "packed.zip"}


@dataclass(frozen=True)
class Volume:
    """A target after several revisions, and where consumers find the DAGs."""

    target: Path
    folder: Path


@pytest.fixture(scope="module", params=["in-place", "snapshot"])
def layout(request: pytest.FixtureRequest) -> str:
    """Either layout."""
    return str(request.param)


@pytest.fixture(scope="module", params=["off", "syntax"])
def volume(
    layout: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Volume:
    """A target with old snapshots, and behind a gate with a revision that was refused."""
    target = tmp_path_factory.mktemp("volume") / "dags"
    settings = {"S3_SYNC_LAYOUT": layout, "S3_SYNC_GATE": request.param}
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
            if request.param == "syntax":
                refuse(daemon, s3)
    assert layout == "in-place" or len(snapshots(target)) == 3
    return Volume(target, target / "current" if layout == "snapshot" else target)


@contextmanager
def without_our_ignore_file(target: Path) -> Iterator[None]:
    """Move `.s3-sync/.airflowignore` away for a moment."""
    place, aside = target / ".s3-sync/.airflowignore", target / ".s3-sync/lock.aside"
    place.rename(aside)
    try:
        yield
    finally:
        aside.rename(place)


def refuse(daemon: Daemon, s3: SwappingS3) -> None:
    """Let the gate refuse a revision with one more DAG."""
    s3.swap(FILES | {"sales.py": b"airflow dag (\n", "pkg/more.py": DAG % b"more"})
    daemon.sync()
    assert daemon.find_events("revision_refused")
    assert not list((daemon.target / ".s3-sync").glob("*/pkg/more.py")), "it was taken back"


@pytest.fixture(params=["regexp", "glob"])
def syntax(request: pytest.FixtureRequest) -> Syntax:
    """
    Either syntax of `.airflowignore`; Airflow 2 has the first by default, Airflow 3 the second.
    """
    return request.param  # type: ignore[no-any-return]


def check(volume: Volume, walk: Walk, syntax: Syntax) -> None:
    """
    Check what a walk finds in the DAG folder, and in the target itself, where people may set it.
    """
    for start in {volume.folder, volume.target}:
        assert sorted(str(volume.folder / path) for path in PATHS) == sorted(walk(start, syntax))


def test_each_dag_is_found_once(volume: Volume, syntax: Syntax) -> None:
    check(volume, find_dag_files, syntax)


def test_without_our_ignore_file_the_walk_would_go_wrong(volume: Volume, syntax: Syntax) -> None:
    """
    The algorithm sees what it should: this is the one that can fail.

    In place and without a gate nothing of ours looks like a DAG.
    """
    would_mislead = any((volume.target / ".s3-sync").rglob("*.py"))
    with without_our_ignore_file(volume.target):
        try:
            found = find_dag_files(volume.target, syntax)
        except RecursiveLoop:
            return

    assert would_mislead == (len(found) > len(PATHS))


@cache
def airflow(version: str) -> Path:
    """The Python of a real Airflow; made at the first call, which takes minutes."""
    if not ENVIRONMENT.exists():
        pytest.skip("scripts/airflow-environment is not there")
    made = subprocess.run([ENVIRONMENT, version], capture_output=True, text=True)
    if made.returncode == 3:
        pytest.skip(made.stderr.strip())
    assert 0 == made.returncode, made.stderr
    return Path(made.stdout.strip()) / "bin/python"


@pytest.mark.timeout(3_600)
@pytest.mark.usefixtures("only_in_full")
@pytest.mark.parametrize("version", ["2.11", "3"])
def test_real_airflow_finds_each_dag_once_and_agrees_with_the_algorithm(
    version: str, volume: Volume, syntax: Syntax, tmp_path: Path
) -> None:
    python = airflow(version)

    def walk(folder: Path, syntax: Syntax) -> list[str]:
        said = subprocess.run(
            [python, "-c", WALK, str(folder)],
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(tmp_path),
                "AIRFLOW_HOME": str(tmp_path / "airflow"),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "AIRFLOW__CORE__DAG_IGNORE_FILE_SYNTAX": syntax,
            },
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found: list[str] | str = json.loads(said.stdout.splitlines()[-1])
        if isinstance(found, str):
            raise RecursiveLoop(found)
        return found

    check(volume, walk, syntax)
    with without_our_ignore_file(volume.target):
        assert outcome(find_dag_files, volume, syntax) == outcome(walk, volume, syntax)


def outcome(walk: Walk, volume: Volume, syntax: Syntax) -> list[str] | str:
    """What a walk over the target finds, or that it does not come to an end."""
    try:
        return sorted(walk(volume.target, syntax))
    except RecursiveLoop:
        return "recursive loop"
