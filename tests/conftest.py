"""
What every test gets: a clean environment, `--full`, `counts`, and one server of each kind.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

# Before botocore is imported by anyone: no machine-wide AWS setting and no proxy reaches a test.
for _name in list(os.environ):
    if _name.startswith("AWS_") or _name.lower().endswith("_proxy"):
        del os.environ[_name]
os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = "/dev/null"
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
# Neither do the machine's realm and tickets.
for _name in [name for name in os.environ if name.startswith("KRB5")]:
    del os.environ[_name]
os.environ["KRB5_CONFIG"] = "/dev/null"

_configure = structlog.configure


def _configure_uncached(**settings: Any) -> None:
    """
    A logger that is kept as one test has configured it is deaf to what later tests capture.
    """
    _configure(**settings | {"cache_logger_on_first_use": False})


structlog.configure = _configure_uncached  # type: ignore[assignment]

pytest.register_assert_rewrite("tests.support", "tests.scenarios.s3_sync.histories")

from tests.support.airflow import EVERY_VERSION  # noqa: E402
from tests.support.servers import (  # noqa: E402
    MinioServer,
    MotoServer,
    RcloneServer,
    VersityServer,
)


@dataclass(frozen=True)
class Counts:
    """
    How often the tests with a number in their promise repeat it.
    """

    histories: int
    """Generated histories of a bucket, per server."""
    reads: int
    """Files that concurrent readers open while a history runs."""
    kills: int
    """SIGKILLs at random moments of a cycle."""
    power_cuts: int
    """Moments around the turn of a link at which the power goes."""
    ticket_reads: int
    """Reads of a ccache while sidecars replace it."""
    lockout_windows: int
    """Windows of a KDC's lockout policy that an old keytab lives through."""
    symlink_swaps: int
    """Rounds of a process that swaps folders for symlinks while cycles run."""
    faulty_cycles: int
    """Cycles in a row that each kind of fault spoils."""
    polls: int
    """Cycles of a day that goes by as fast as the daemon can."""
    fleet: int
    """Daemons that read one bucket while they are killed, and as many one-shots."""
    permission_histories: int
    """Random histories of DAGs, roles and grants, each held against Airflow's own sync-perm."""
    permission_steps: int
    """How often each of them changes DAGs and is held against it."""
    keys: int
    """Misspell every n-th key of a values file, to see that it is noticed."""
    commits: int
    """Commits that follow one another on a small volume."""
    tree_reads: int
    """Trees that are read while all kinds of trouble happen to git-sync."""
    credential_rotations: int
    """New sessions of AWS, each of which ends the one before."""
    worlds: int
    """Random buckets of good and bad objects."""
    corruptions: int
    """Downloads whose bytes contradict what was promised of them, each in a random way."""
    busy_seconds: int
    """How long an object is rewritten all the time, while others come and go."""
    many_keys: int
    """Objects under one prefix, for the memory that they take."""
    versions: int
    """DAG versions that are asked for at once."""
    version_calls: int
    """Processes of Airflow, as good as, that ask for one of them."""
    stops: int
    """Ways in which a publisher is stopped at each of its requests."""
    good_folders: int
    """DAG folders that Airflow loads as the gate of one publish."""
    runs: int
    """Runs of a live Airflow, with something done to it in each."""
    overwrites: int
    """Releases that are published under the eyes of pods."""


MODERATE = Counts(
    histories=2,
    reads=6_000,
    kills=8,
    power_cuts=2,
    ticket_reads=2_500,
    lockout_windows=4,
    symlink_swaps=4,
    faulty_cycles=5,
    polls=150,
    fleet=5,
    permission_histories=1,
    permission_steps=2,
    keys=11,
    versions=12,
    version_calls=200,
    stops=1,
    good_folders=48,  # each shape of a folder with each body, schedule and set of options
    runs=1,
    overwrites=12,
    commits=8,
    tree_reads=1_000,
    credential_rotations=2,
    worlds=6,
    corruptions=100,
    busy_seconds=4,
    many_keys=4_000,
)
FULL = Counts(
    histories=120,
    reads=400_000,
    kills=220,
    power_cuts=50,
    ticket_reads=120_000,
    lockout_windows=48,
    symlink_swaps=150,
    faulty_cycles=1_000,
    polls=8_640,
    fleet=200,
    permission_histories=12,
    permission_steps=3,
    keys=1,
    versions=50,
    version_calls=2_000,
    stops=4,
    good_folders=200,
    runs=100,
    overwrites=150,
    commits=200,
    tree_reads=20_000,
    credential_rotations=20,
    worlds=300,
    corruptions=10_000,
    busy_seconds=600,
    many_keys=100_000,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """
    Add `--full`.
    """
    parser.addoption(
        "--full", action="store_true", help="the counts that the contract is proved with"
    )


def pytest_configure(config: pytest.Config) -> None:
    """
    Give hypothesis no deadline (the machine may be busy) and, with `--full`, more examples.
    """
    settings.register_profile(
        "moderate", deadline=None, database=None, print_blob=True, max_examples=50
    )
    settings.register_profile("full", settings.get_profile("moderate"), max_examples=2_000)
    settings.load_profile("full" if config.getoption("--full") else "moderate")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Put first what takes longest, its folders mixed: what waits in one leaves the processor to what
    computes in another. The small files then fill the end of a run side by side.
    """
    here = Path(__file__).parent
    slow = {"bench", "demo", "scenarios", "soak"}
    ranks: dict[Path, int] = {}
    files = Counter[Path]()
    for path in dict.fromkeys(item.path for item in items):
        ranks[path] = files[path.parent]
        files[path.parent] += 1

    def place(item: pytest.Item) -> float:
        is_slow = item.path.relative_to(here).parts[0] in slow
        return ranks[item.path] / files[item.path.parent] if is_slow else 1.0

    items.sort(key=place)


class SideBySide(LoadFileScheduling):  # type: ignore[misc]  # has no types
    """
    A file is for one worker, or an Airflow of a file: all of them one after the other take hours.
    """

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        version = test.partition("[")[2].rstrip("]").partition("-")[0]
        return f"{file}[{version}]" if version in EVERY_VERSION else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling:
    """
    Share tests out among workers.
    """
    return SideBySide(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """
    Say in a line for each reason what was left out.
    """
    left_out = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )
    if left_out:
        terminalreporter.section("left out: how many, why, how to have them")
    for reason, number in left_out.most_common():
        terminalreporter.write_line(f"{number:5}  {reason}")


def counts_of(config: pytest.Config) -> Counts:
    """
    The counts of a run, for tests that are parametrized by them.
    """
    return FULL if config.getoption("--full") else MODERATE


@pytest.fixture
def only_in_full(request: pytest.FixtureRequest) -> None:
    """
    Skip a test, but with `--full`.
    """
    if not request.config.getoption("--full"):
        pytest.skip("waits long: runs with make test-full")


@pytest.fixture(scope="session")
def counts(request: pytest.FixtureRequest) -> Counts:
    """
    The counts of this run: moderate, or with `--full` all of them.
    """
    return counts_of(request.config)


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    """
    One moto for the whole run; a test that stops it takes a `MotoServer` of its own.
    """
    with MotoServer() as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneServer]:
    """
    One rclone in memory for the whole run; a test that stops it takes one of its own.
    """
    with RcloneServer(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """
    One MinIO for the whole run.
    """
    with MinioServer(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VersityServer]:
    """
    One versitygw for the whole run.
    """
    with VersityServer(tmp_path_factory.mktemp("versitygw")) as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left_over() -> Iterator[None]:
    """
    Fail the run when a child of the test process outlives its test.
    """
    yield
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ") for pid in children]
    ours = (b"/.venv/bin/", b"krb5kdc")
    left = [command.decode() for command in commands if any(name in command for name in ours)]
    assert not left, f"left over: {left}"
