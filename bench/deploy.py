"""
``python -m bench deploy``: from the end of a deploy to the new DAG in Airflow.

A deploy is a PUT into a prefix, an `s3-sync publish`, or a commit in a repository; a
real dag-processor of Airflow 3 with the settings of the published values reads the
folder, or a bundle of Airflow's own with its defaults. It ends when Airflow's database
has the new DAG, or the new description of a changed one. Deploys begin at random
moments.
"""

import json
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.budgets import Outcome, at_most, at_most_seconds
from bench.bundle import CLASSES, GIT, MODULE, OURS, S3
from bench.measure import during
from bench.report import deliver, parser, seconds, table, version_of
from bench.s3_store import BUCKET, PREFIX, RELEASES
from tests.support.airflow.databases import Database, Postgres
from tests.support.airflow.installed import Airflow, AirflowIsMissing
from tests.support.aws.servers import MotoServer
from tests.support.daemon import VENV_BIN, Daemon, SidecarProcess
from tests.support.git.git_sync import GitSite, git_site, skip_reason
from tests.support.waiting import wait_until

LISTING = "s3-sync, listing"
RELEASE = "s3-sync, release"
FROM_GIT = "git-sync-wrapper"
WAYS = (LISTING, RELEASE, FROM_GIT, S3, GIT)
INTERVAL = "5s"
REFRESH_SECONDS = 5
"""As in the published values, as the interval."""
BUNDLE_REFRESH_SECONDS = 5
TURNS_OF_PEERS = 2
"""They look every five minutes."""
PATIENCE_SECONDS = 900.0
DAGS = 50
COST_SECONDS = 60
MOST_PERCENT = 2.0
"""Of the sidecar, and of Airflow's more frequent looks for files, of a core."""
MOST = {"new": (8.0, 16.0), "changed": (5.0, 12.0)}
"""The median and the longest time, in seconds."""
DAG = """\
from airflow.sdk import DAG

with DAG("{name}", description="{text}", schedule=None):
    pass
"""
MODULE_OF_DAGS = "NAME = '{name}'\n" * 50
LOOK = """\
import sys, time
from airflow.utils.file import list_py_file_paths as look
look(sys.argv[1])
began = time.process_time()
for _ in range(20):
    look(sys.argv[1])
print((time.process_time() - began) / 20)
"""
KNOWN = "SELECT 1 FROM dag WHERE dag_id = %s AND description = %s"


class Site(NamedTuple):
    """
    The sources, empty at first, and what the files of a deploy are.
    """

    home: Path
    s3: MotoServer
    git: GitSite
    files: Path


class Way(NamedTuple):
    """
    One way of a DAG into Airflow.

    Args:
        settings: Of the dag-processor.
        deploy: Brings all files of the site to their source.
        shown: The folder in which consumers see them; None if Airflow fetches them.
        sidecar: The sidecar.
    """

    settings: Mapping[str, str]
    deploy: Callable[[], object]
    shown: Path | None = None
    sidecar: SidecarProcess | None = None


class Hops(NamedTuple):
    """
    How long a deploy took in all: to the volume, and from there into the database.
    """

    seconds: float
    to_volume_seconds: float
    to_airflow_seconds: float


def main(arguments: Sequence[str]) -> None:
    """
    Measure, print the tables, and with `--write` also into the documentation.
    """
    add = (known := parser("deploy", __doc__)).add_argument
    add("--files", type=int, default=1_000, help=f"of which {DAGS} have a DAG")
    add("--turns", type=int, default=10, help="deploys of each way (default: 10)")
    add("--ways", nargs="+", default=WAYS, choices=WAYS, metavar="WAY")
    options = known.parse_args(arguments)
    try:
        airflow = Airflow.install("3")
    except AirflowIsMissing as missing:
        raise SystemExit(f"deploy: nothing is measured: {missing}") from None
    found: dict[tuple[str, str], list[Hops]] = {}
    costs: dict[str, tuple[float, float]] = {}
    for name in options.ways:
        if name == FROM_GIT and (reason := skip_reason()):
            print(f"deploy: without {name}: {reason}")
            continue
        print(name, flush=True)
        turns = (
            options.turns if name in (LISTING, RELEASE, FROM_GIT) else TURNS_OF_PEERS
        )
        with ExitStack() as stack:
            site = stack.enter_context(sources(options.files))
            way = WAY_OF[name](site, stack)
            database = stack.enter_context(running(airflow, site, way))
            for kind in MOST:
                found[name, kind] = [
                    deploy(site, way, database, kind, turn) for turn in range(turns)
                ]
            if way.sidecar is not None:
                polls = during(way.sidecar.pid, lambda: time.sleep(COST_SECONDS))
                # a bundle whose version is the same is not looked into
                look = 0.0 if name == RELEASE else look_seconds(airflow, site, way)
                costs[name] = polls.cpu_seconds / COST_SECONDS, look / REFRESH_SECONDS
    versions = {"Airflow": version_of(airflow.bin / "airflow", "version")}
    text = table_of(found, costs)
    deliver(
        "deploy", {"seconds": text}, budgets(found, costs), versions, page=options.page
    )


@contextmanager
def sources(files: int) -> Iterator[Site]:
    """
    Yield a bucket, a repository, and a folder with DAG files.
    """
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        MotoServer() as s3,
        git_site(Path(name)) as git,
    ):
        home = Path(name)
        s3.client().create_bucket(Bucket=BUCKET)
        folder = home / "files"
        folder.mkdir()
        for number in range(files):
            text = DAG if number < DAGS else MODULE_OF_DAGS
            dag = f"dag_{number}"
            (folder / f"{dag}.py").write_text(text.format(name=dag, text="first"))
        yield Site(home, s3, git, folder)


# --- the ways


def listing(site: Site, stack: ExitStack) -> Way:
    sent: dict[str, str] = {}

    def deploy() -> None:
        for path in site.files.iterdir():
            text = path.read_text()
            if sent.get(path.name) != text:
                key = f"{PREFIX}/{path.name}"
                site.s3.client().put_object(Bucket=BUCKET, Key=key, Body=text)
                sent[path.name] = text

    deploy()
    target = site.home / "dags"
    daemon = Daemon(site.s3, BUCKET, target, PREFIX, INTERVAL)
    stack.enter_context(daemon)
    return Way(folder_of(target), deploy, target, daemon)


def release(site: Site, stack: ExitStack) -> Way:
    where = {"AWS_BUCKET": BUCKET, "KEY_PATH": RELEASES, "HOME": str(site.home)}
    environment = {"PATH": "/usr/bin:/bin", **where, **site.s3.environment()}
    command = [str(VENV_BIN / "s3-sync"), "publish", str(site.files)]

    def deploy() -> None:
        subprocess.run(command, env=environment, check=True, capture_output=True)

    deploy()
    target = site.home / "dags"
    settings = {"S3_SYNC_SOURCE": "release", "S3_SYNC_LAYOUT": "snapshot"}
    daemon = Daemon(site.s3, BUCKET, target, RELEASES, INTERVAL, settings)
    stack.enter_context(daemon)
    shown = target / "current"
    kwargs = {"path": str(shown), "refresh_interval": BUNDLE_REFRESH_SECONDS}
    return Way(bundle(OURS, kwargs), deploy, shown, daemon)


def from_git(site: Site, stack: ExitStack) -> Way:
    del stack  # the site ends its processes
    commit = committer(site)
    commit()
    link = site.git.link
    wrapper = site.git.wrapper(GITSYNC_PERIOD=INTERVAL)
    return Way(folder_of(link), commit, link, wrapper)


def s3_bundle(site: Site, stack: ExitStack) -> Way:
    ours = listing(site, stack)
    kwargs = {"bucket_name": BUCKET, "prefix": PREFIX}
    return Way(site.s3.environment() | bundle(S3, kwargs), ours.deploy)


def git_bundle(site: Site, stack: ExitStack) -> Way:
    del stack
    commit = committer(site)
    commit()
    url = site.git.server.url()
    connection = {
        "AIRFLOW_CONN_GIT_DEFAULT": json.dumps({"conn_type": "git", "host": url})
    }
    kwargs = {"tracking_ref": "main", "repo_url": url}
    return Way(connection | bundle(GIT, kwargs), commit)


WAY_OF = {
    LISTING: listing,
    RELEASE: release,
    FROM_GIT: from_git,
    S3: s3_bundle,
    GIT: git_bundle,
}


def committer(site: Site) -> Callable[[], object]:
    """
    Return what commits and pushes all files.
    """
    return lambda: site.git.repository.commit(
        {path.name: path.read_text() for path in site.files.iterdir()}
    )


def folder_of(path: Path) -> dict[str, str]:
    """
    Return the published settings for a DAG folder.
    """
    return {
        "AIRFLOW__CORE__DAGS_FOLDER": str(path),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": str(REFRESH_SECONDS),
    }


def bundle(name: str, kwargs: Mapping[str, object]) -> dict[str, str]:
    """
    Return the settings for a bundle; what they do not say is Airflow's default.
    """
    one = {"name": "dags", "classpath": CLASSES[name], "kwargs": kwargs}
    variable = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"
    return {variable: json.dumps([one]), "PYTHONPATH": str(MODULE)}


# --- a deploy


@contextmanager
def running(airflow: Airflow, site: Site, way: Way) -> Iterator[Database]:
    """
    Run a dag-processor, which knows all DAGs; yield its database.
    """
    with Postgres() as server:
        home = site.home / "airflow-home"
        database = airflow.new_postgres(server, home)
        given = {**airflow.environment(database.url, home), **way.settings}
        given["PYTHONDONTWRITEBYTECODE"] = "1"
        program = airflow.bin / "airflow"
        with SidecarProcess(program, given, home, ["dag-processor"]):
            all_known = "SELECT count(*) FROM dag"
            wait_until(
                lambda: database.query(all_known)[0][0] == DAGS,
                "all DAGs",
                PATIENCE_SECONDS,
                step_seconds=0.5,
            )
            yield database


def deploy(site: Site, way: Way, database: Database, kind: str, turn: int) -> Hops:
    """
    Deploy a new DAG, or a changed one, and wait until Airflow knows it.
    """
    time.sleep(random.uniform(0.0, 2 * REFRESH_SECONDS))
    name = f"dag_of_turn_{turn}" if kind == "new" else f"dag_{turn}"
    text = f"{kind} in turn {turn}"
    path = site.files / f"{name}.py"
    path.write_text(DAG.format(name=name, text=text))
    way.deploy()
    began = time.monotonic()
    arrived = began
    if way.shown is not None:
        there = way.shown / path.name
        wait_until(
            lambda: there.exists() and text in there.read_text(),
            "the file",
            PATIENCE_SECONDS,
            step_seconds=0.05,
        )
        arrived = time.monotonic()
    wait_until(
        lambda: bool(database.query(KNOWN, (name, text))),
        "the DAG",
        PATIENCE_SECONDS,
        step_seconds=0.05,
    )
    known = time.monotonic()
    return Hops(known - began, arrived - began, known - arrived)


def look_seconds(airflow: Airflow, site: Site, way: Way) -> float:
    """
    Return what one look of Airflow for files costs, of which it opens each.
    """
    command = [str(airflow.bin / "python"), "-c", LOOK, str(way.shown)]
    environment = airflow.environment(None, site.home / "airflow-home")
    # Airflow may warn before it.
    return float(subprocess.check_output(command, env=environment).split()[-1])


# --- the results


def table_of(
    found: Mapping[tuple[str, str], Sequence[Hops]],
    costs: Mapping[str, tuple[float, float]],
) -> str:
    """
    Return a table of the times by way and kind of deploy.
    """
    rows = []
    for (name, kind), hops in found.items():
        middle = [seconds(median(column)) for column in zip(*hops, strict=True)]
        parts = [f"{part:.2%}" for part in costs.get(name, ())]
        rows.append([f"{name}, {kind}", seconds(max(hops).seconds), *middle, *parts])
    head = ["way, DAG", "longest", "median", "to the volume", "into Airflow"]
    return table([*head, "sidecar, of a core", "Airflow's looks"], rows)


def budgets(
    found: Mapping[tuple[str, str], Sequence[Hops]],
    costs: Mapping[str, tuple[float, float]],
) -> list[Outcome]:
    """
    Return the outcomes of all budgets of the ways that were measured.
    """
    outcomes = []
    for (name, kind), hops in found.items():
        if name in CLASSES:
            continue
        what = f"{name}, {kind} DAG"
        most, longest = MOST[kind]
        middle = median(one.seconds for one in hops)
        outcomes += [
            at_most_seconds(what, "median", most, middle),
            at_most_seconds(what, "longest", longest, max(hops).seconds),
        ]
    for name, parts in costs.items():
        percent = 100 * sum(parts)
        outcomes.append(at_most(name, "of a core", MOST_PERCENT, percent, "%"))
    return outcomes
