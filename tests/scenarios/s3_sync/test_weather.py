"""
In any weather: the last good files stay, the cause is named, and all is well again afterwards.

All storms run at the same time, each with a daemon of its own; they spend their time waiting.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.conftest import Counts
from tests.scenarios.s3_sync.storms import MACHINE, STORMS
from tests.scenarios.s3_sync.weather import LAYOUTS, Logbook, is_flat, sail
from tests.support.servers import RcloneServer

COUNTED = ("sidecar_failures_total", "s3_sync_unread_objects")
Voyages = dict[tuple[str, str], Future[Logbook]]

pytestmark = pytest.mark.timeout(7200)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """
    Each storm in each layout; without `--full` those of the network in one of them, in turn.

    What spoils an answer does so before it reaches a layout.
    """
    every = metafunc.config.getoption("--full")
    voyages = [
        (name, layout)
        for number, name in enumerate(STORMS)
        for turn, layout in enumerate(LAYOUTS)
        if every or name in MACHINE or number % len(LAYOUTS) == turn
    ]
    metafunc.parametrize(("name", "layout"), voyages)


@pytest.fixture(scope="module")
def voyages(
    request: pytest.FixtureRequest,
    counts: Counts,
    rclone: RcloneServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Voyages]:
    """The logbooks of the storms that this run asks for."""
    items = [item for item in request.session.items if item.path == request.path]
    params = [item.callspec.params for item in items if isinstance(item, pytest.Function)]
    wanted = {(str(given["name"]), str(given["layout"])): None for given in params}
    at_once = 24 if request.config.getoption("--full") else 12
    with ThreadPoolExecutor(at_once) as pool:
        yield {
            (name, layout): pool.submit(
                sail,
                STORMS[name],
                layout,
                counts.faulty_cycles,
                rclone,
                tmp_path_factory.mktemp("voyage"),
            )
            for name, layout in wanted
        }


@pytest.fixture
def logbook(voyages: Voyages, name: str, layout: str) -> Logbook:
    """What was seen in this storm."""
    return voyages[name, layout].result()


def test_the_last_good_files_stay(logbook: Logbook) -> None:
    assert logbook.wounds == []


def test_the_cause_is_named(logbook: Logbook, name: str) -> None:
    reason, told = STORMS[name].reason, logbook.told
    assert told is not None

    assert logbook.ends[-1]["reason"] == reason
    assert logbook.ends[-1]["error"]
    assert {end["reason"] for end in logbook.ends if "reason" in end} == {reason}
    assert told.readyz["reason"] == told.status["last_error"]["reason"] == reason
    labels = f'{{reason="{reason}",sidecar="s3-sync"}}'
    counts = [told.metrics.get(f"{name}{labels}", 0) for name in COUNTED]
    assert max(counts) >= 1
    assert told.healthz == 200


def test_it_stays_ready_with_what_it_has(logbook: Logbook) -> None:
    assert logbook.told is not None
    assert logbook.told.readyz["ready"] is True
    assert logbook.told.metrics['sidecar_ready{sidecar="s3-sync"}'] == 1


def test_it_recovers_without_a_restart(logbook: Logbook) -> None:
    assert logbook.recovered == logbook.wanted
    assert logbook.is_same_process
    assert logbook.after is not None
    assert logbook.after.readyz["ready"] is True
    assert logbook.after.readyz["reason"] is None
    assert logbook.after.status["consecutive_failures"] == 0


def test_nothing_grows(logbook: Logbook, counts: Counts) -> None:
    """
    Descriptors, threads and memory in the second half of the storm against the first.

    A few threads are asyncio's own, for names to resolve, and come one by one.
    """
    vitals = logbook.vitals

    assert len(vitals) == counts.faulty_cycles
    assert is_flat([v.descriptors for v in vitals], slack=3)
    assert is_flat([v.threads for v in vitals], slack=3)
    assert is_flat([v.memory_kib for v in vitals], slack=1024)
    assert logbook.leftovers == []
    assert logbook.stray_lines == []
