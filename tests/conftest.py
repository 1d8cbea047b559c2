"""
The setup of every test: a clean environment, `--full`, `counts`, a server of each kind.
"""

import os
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

# Before any import of botocore: no AWS setting or proxy of the machine reaches a test.
for _name in list(os.environ):
    if _name.startswith("AWS_") or _name.lower().endswith("_proxy"):
        del os.environ[_name]
os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = "/dev/null"
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
# The realm and the tickets of the machine do not reach a test either.
for _name in [name for name in os.environ if name.startswith("KRB5")]:
    del os.environ[_name]
os.environ["KRB5_CONFIG"] = "/dev/null"

_configure = structlog.configure


def _configure_uncached(**settings: Any) -> None:
    """
    Configure structlog without its cache: later tests cannot capture the logs of a
    cached logger.
    """
    _configure(**settings | {"cache_logger_on_first_use": False})


structlog.configure = _configure_uncached  # type: ignore[assignment]

# Folders whose tests start programs; among them are the longest ones.
SLOW = ("chart", "demo", "docs", "scenarios")

pytest.register_assert_rewrite("tests.support", "tests.scenarios.s3_sync.histories")

from tests.support import forks  # noqa: E402
from tests.support.airflow.installed import EVERY_VERSION  # noqa: E402
from tests.support.aws.servers import (  # noqa: E402
    MinioServer,
    MotoServer,
    ProgramServer,
    RcloneServer,
    VersityServer,
)
from tests.support.each_call.stage import Stage  # noqa: E402
from tests.support.ledger.judging import is_judged, report, unexcused  # noqa: E402
from tests.support.ledger.seen import LEDGER  # noqa: E402
from tests.support.machine.volumes import mount_in_private  # noqa: E402


def _count(moderate: int, *, full: int) -> int:
    found: int = field(default=moderate, metadata={"full": full})
    return found


@dataclass(frozen=True)
class Counts:
    """
    How often tests repeat their steps: moderate counts by default, full counts with
    `--full`.
    """

    histories: int = _count(1, full=120)
    """Generated histories of a bucket, per server."""
    reads: int = _count(3_000, full=400_000)
    """Files that concurrent readers open while a history runs."""
    kills: int = _count(8, full=220)
    """SIGKILLs at random moments of a cycle."""
    power_cuts: int = _count(2, full=50)
    """Power cuts at random moments around the swap of a link."""
    ticket_reads: int = _count(1_200, full=120_000)
    """Reads of a ccache while sidecars replace it."""
    permission_histories: int = _count(1, full=12)
    """
    Random histories of DAGs, roles and grants, each compared with Airflow's own
    sync-perm.
    """
    permission_steps: int = _count(1, full=3)
    """Changes of the DAGs in each of these histories, each followed by a comparison."""
    plants: int = _count(1, full=12)
    """Kinds of files and links that are planted at each name on a volume."""
    planted_names: int = _count(4, full=20)
    """Names in each place of a volume at which they are planted."""
    commits: int = _count(8, full=60)
    """Consecutive commits on a small volume."""
    tree_reads: int = _count(1_000, full=20_000)
    """Complete reads of the published tree while git-sync suffers random faults."""
    credential_rotations: int = _count(2, full=20)
    """New AWS sessions, each of which ends the previous one."""
    versions: int = _count(12, full=50)
    """DAG versions that are requested at once."""
    version_calls: int = _count(200, full=2_000)
    """Simulated Airflow processes, each of which requests one of these versions."""
    stops: int = _count(1, full=4)
    """
    Combinations of signal and moment that stop a publisher at each of its requests.
    """
    meetings: int = _count(2, full=12)
    """Pairs of publishers that write the pointer of one prefix at the same moment."""
    runs: int = _count(1, full=100)
    """
    DAG runs in a live Airflow, each with a publish, a rollback or a restart meanwhile.
    """


MODERATE = Counts()
FULL = Counts(**{one.name: one.metadata["full"] for one in fields(Counts)})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="repeat kills, histories and reads at full counts",
    )


def pytest_configure(config: pytest.Config) -> None:
    """
    Set no deadline for Hypothesis (the machine may be busy) and, with `--full`, more
    examples. A stopped run must leave no volume mounted: pytest cannot remove its
    folder two runs later.
    """
    if not hasattr(config, "workerinput"):
        mount_in_private()
    settings.register_profile(
        "moderate", deadline=None, database=None, print_blob=True, max_examples=50
    )
    settings.register_profile(
        "full", settings.get_profile("moderate"), max_examples=2_000
    )
    settings.load_profile("full" if config.getoption("--full") else "moderate")
    forks.is_real = config.getoption("--full")


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """
    In parallel runs, leave cases out (see `sample_cases`) and start with the folders of
    slow tests; in them, with the largest file. The small files then fill the end.
    """
    if not hasattr(config, "workerinput"):
        return
    if not config.getoption("--full"):
        sample_cases(items)
    here = Path(__file__).parent

    def place(item: pytest.Item) -> tuple[bool, int, Path]:
        return (
            item.path.relative_to(here).parts[0] not in SLOW,
            -item.path.stat().st_size,
            item.path,
        )

    items.sort(key=place)


def sample_cases(items: list[pytest.Item]) -> None:
    """
    Of each test with the marker `sample`, skip all cases but some, which a seed draws;
    a run of one sidecar, of one fault and with `--full` has all.
    """
    cases = defaultdict[tuple[str, int], list[pytest.Item]](list)
    for item in items:
        for marker in item.iter_markers("sample"):
            cases[item.nodeid.partition("[")[0], marker.args[0]].append(item)
    why = "a sample of the cases is enough: make test/NAME or make test-full for all"
    for (seed, count), some in cases.items():
        for item in random.Random(seed).sample(some, len(some))[count:]:
            item.add_marker(pytest.mark.skip(reason=why))


class SideBySide(LoadFileScheduling):  # type: ignore[misc]  # has no types
    """
    Assigns a worker to each file, or to each Airflow version in it: in sequence, they
    take hours.
    """

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        version = test.partition("[")[2].rstrip("]").partition("-")[0]
        return f"{file}[{version}]" if version in EVERY_VERSION else file


def pytest_xdist_make_scheduler(
    config: pytest.Config, log: object
) -> LoadFileScheduling:
    return SideBySide(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """
    Send what a worker's tests have seen to the process that runs the workers; there,
    with `--full`, fail a run of all tests that left out a documented name.
    """
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["ledger"] = LEDGER.noted()
    elif is_judged(session.config) and unexcused() and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_testnodedown(node: Any) -> None:
    """
    Take what the tests of a worker have seen.
    """
    LEDGER.take(getattr(node, "workeroutput", {}).get("ledger", []))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """
    Print the share of the documented names that the tests have seen.
    """
    for line in report(is_judged(config)):
        terminalreporter.write_line(line)


def counts_of(config: pytest.Config) -> Counts:
    """
    Return the counts of a run, for tests that are parametrized with them.
    """
    return FULL if config.getoption("--full") else MODERATE


@pytest.fixture(scope="session")
def only_in_full(request: pytest.FixtureRequest) -> None:
    """
    Skip a test unless `--full` is set.
    """
    if not request.config.getoption("--full"):
        pytest.skip("waits long: runs with make test-full")


@pytest.fixture(scope="session")
def counts(request: pytest.FixtureRequest) -> Counts:
    """
    The counts of this run: moderate, or full with `--full`.
    """
    return counts_of(request.config)


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    """
    One moto for the whole run; a test that stops moto starts its own `MotoServer`.
    """
    with MotoServer() as server:
        yield server


def one_for_all(kind: type[ProgramServer]) -> Any:
    """
    Return a fixture: one server of a kind for the whole run; a test that stops it starts
    its own.
    """

    @pytest.fixture(scope="session", name=kind.name)
    def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProgramServer]:
        with kind(tmp_path_factory.mktemp(kind.name)) as running:
            yield running

    return server


rclone = one_for_all(RcloneServer)
minio = one_for_all(MinioServer)
versitygw = one_for_all(VersityServer)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """
    Lives of a sidecar, for the tests that arm each call.
    """
    with Stage() as stage:
        yield stage


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left_over() -> Iterator[None]:
    """
    Fail the run if a child of the test process outlives the tests.
    """
    yield
    if forks.server.cache_info().currsize:
        assert 0 == forks.server().end(), "left over: forked sidecars"
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    commands = [Path(f"/proc/{pid}/cmdline").read_text() for pid in children]
    left = [one for one in commands if re.search(r"/\.venv/bin/|krb5kdc", one)]
    assert not left, f"left over: {left}"
