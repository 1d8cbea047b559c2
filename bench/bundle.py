"""
``python -m bench bundle``: what a task and the dag-processor wait for, by DAG bundle.

airflow-sidecar-bundle with a release that s3-sync brings, beside Airflow's own
S3DagBundle (the same files in the same bucket) and GitDagBundle (from a git server). A
call runs in a process that has already imported Airflow. In a new pod, our bundle pays
for the init container as well.
"""

import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import add
from pathlib import Path
from typing import Any

from bench.budgets import at_most_part
from bench.images import install
from bench.measure import Cost, least, run
from bench.report import deliver, options, seconds, table, version_of
from bench.s3_store import BUCKET, PREFIX, Store, one_shot, open_store
from bench.s3_sync import LAYOUTS, RELEASE
from tests.support.airflow.installed import Airflow
from tests.support.dialogue import Dialogue
from tests.support.git.git_server import GitServer
from tests.support.s3_sync.scripted import published

CHILD = Path(__file__).with_name("versions_child.py")
MODULE = Path(__file__).parents[1] / "airflow-bundle"
OURS = "airflow-sidecar-bundle"
S3 = "S3DagBundle"
GIT = "GitDagBundle"
CLASSES = {
    OURS: "airflow_sidecar_bundle.SidecarDagBundle",
    S3: "airflow.providers.amazon.aws.bundles.s3.S3DagBundle",
    GIT: "airflow.providers.git.bundles.git.GitDagBundle",
}
SITUATIONS = {
    "cold": "a task in a new pod",
    "warm": "a task, its version on the volume",
    "refresh": "the dag-processor, nothing changed",
}
CALLS = 20
"""Repetitions of calls that take less than a millisecond; the lowest cost counts."""
PARTS = {S3: 1 / 8, GIT: 1.2}
PART_FILES = 400
NOTHING = Cost(0.0, 0.0, 0.0)
Costs = dict[tuple[int, str, str], list[Cost]]
"""By number of files, bundle and situation."""


def main(arguments: Sequence[str]) -> None:
    """
    Measure, print the tables, and with `--write` also into the documentation.
    """
    given = options(
        "bundle",
        __doc__,
        arguments,
        files=([PART_FILES, 1_000], "files in the DAG folder"),
        turns=(3, "measurements of each bundle"),
    )
    airflow = Airflow.install_or_skip("3").bin
    costs: Costs = defaultdict(list)
    for files in given.files:
        print(f"{files:,} files", flush=True)
        with (
            tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as home,
            tempfile.TemporaryDirectory(prefix="bench-") as own,
            open_store(files) as store,
            GitServer(Path(home)) as server,
        ):
            server.repository().commit(published(store.source))
            program = install("s3-sync", Path(own))
            for _ in range(given.turns):
                for name in CLASSES:
                    folder = Path(home) / name
                    shutil.rmtree(folder, ignore_errors=True)
                    folder.mkdir()
                    before = (
                        init_container(store, program, folder)
                        if name == OURS
                        else NOTHING
                    )
                    with pod(airflow, store, server, folder) as child:
                        for situation, cost in measure(
                            child, store, server, name, folder, before
                        ):
                            costs[files, name, situation].append(cost)
    rows = [
        [
            f"{SITUATIONS[what]}, {files:,} files",
            *(_cell(costs[files, b, what]) for b in CLASSES),
        ]
        for files in given.files
        for what in SITUATIONS
    ]
    outcomes = [
        at_most_part(
            f"{SITUATIONS['cold']}, {PART_FILES} files, wall",
            f"vs. {peer}",
            most,
            least(costs[PART_FILES, OURS, "cold"]).wall_seconds
            / least(costs[PART_FILES, peer, "cold"]).wall_seconds,
        )
        for peer, most in PARTS.items()
        if PART_FILES in given.files
    ]
    versions = {"Airflow": version_of(airflow / "airflow", "version")}
    parts = {"CPU (wall)": table(["", *CLASSES], rows)}
    deliver("bundle", parts, outcomes, versions, page=given.page)


def init_container(store: Store, program: list[str], folder: Path) -> Cost:
    """
    Return the cost of the init container of a pod, which ends before Airflow starts.
    """
    settings = {**one_shot(folder / "volume"), **LAYOUTS[RELEASE]}
    return run(program, store.environment() | settings)


def measure(
    child: Dialogue,
    store: Store,
    server: GitServer,
    name: str,
    folder: Path,
    before: Cost,
) -> Iterator[tuple[str, Cost]]:
    """
    Yield the costs of one bundle in a new pod, by situation.
    """
    arguments: dict[str, Any] = {
        OURS: {"path": str(folder / "volume" / "current")},
        S3: {"bucket_name": BUCKET, "prefix": PREFIX},
        GIT: {"tracking_ref": "main", "repo_url": server.url()},
    }[name]

    def do(deed: str, **kwargs: Any) -> tuple[Cost, str | None]:
        line = {"do": deed, "class": CLASSES[name], "kwargs": kwargs}
        answer = child.ask(line)
        found = published(Path(answer["path"]))
        found = {path: text for path, text in found.items() if ".git/" not in path}
        assert published(store.source) == found, answer["path"]
        cpu, wall = answer["cost"]
        return Cost(cpu, wall, 0.0), answer["version"]

    cold, version = do("initialize", **arguments)
    yield "cold", Cost(*map(add, before, cold))
    pin = {} if version is None else {"version": version}
    for _ in range(CALLS if pin else 3):
        yield "warm", do("initialize", **pin, **arguments)[0]
    do("initialize", **arguments)
    for _ in range(CALLS):
        yield "refresh", do("refresh")[0]


@contextmanager
def pod(
    airflow: Path, store: Store, server: GitServer, folder: Path
) -> Iterator[Dialogue]:
    """
    Run a process of Airflow with its folder, and connections to the bucket and the
    repository.
    """
    given = store.environment()
    connections: Mapping[str, Any] = {
        "AWS_DEFAULT": {
            "conn_type": "aws",
            "login": given["AWS_ACCESS_KEY_ID"],
            "password": given["AWS_SECRET_ACCESS_KEY"],
            "extra": {"endpoint_url": store.endpoint},
        },
        "GIT_DEFAULT": {"conn_type": "git", "host": server.url()},
    }
    environment = {
        **given,
        "HOME": str(folder),
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(folder / "storage"),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "PYTHONPATH": str(MODULE),
        **{f"AIRFLOW_CONN_{key}": json.dumps(one) for key, one in connections.items()},
    }
    program: list[str | Path] = [airflow / "python", "-P", CHILD]
    with (
        folder.with_suffix(".log").open("w") as log,
        Dialogue(program, environment, log) as child,
    ):
        yield child


def _cell(costs: list[Cost]) -> str:
    best = least(costs)
    return f"{seconds(best.cpu_seconds)} ({seconds(best.wall_seconds)})"
