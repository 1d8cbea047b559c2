"""
Faults of the machine that last for hours: disk and clock.

Faults of the network and the server are in tests/s3_sync/conformance and, with a whole daemon, in
tests/scenarios/s3_sync/s3.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.s3_sync.machine.weather import (
    LAYOUTS,
    Scene,
    Vitals,
    clock_settings,
    is_flat,
    leftovers,
    set_clock,
)
from tests.support.aws.fake_s3 import error
from tests.support.aws.fault_proxy import FaultProxy, is_skewed
from tests.support.aws.servers import RcloneServer
from tests.support.machine.volumes import disk, mount, small_volume
from tests.support.waiting import wait_until

SKEWED = error(403, "RequestTimeTooSkewed", "The difference is too large.")


@dataclass(frozen=True)
class Storm:
    """
    A fault that begins and ends on request.

    Args:
        reason: The reason in the log, in `/readyz` and in the metrics.
        settings: Returns the settings of the daemon for the test's folder.
        volume: Creates the volume of the target in that folder.
    """

    reason: str
    begin: Callable[[Scene], object]
    end: Callable[[Scene], object]
    settings: Callable[[Path], dict[str, str]] = lambda folder: {}
    volume: Callable[[Path], AbstractContextManager[Path]] = nullcontext


def take_inodes(scene: Scene) -> None:
    """Create empty files until no inode is left."""
    (scene.place / "many").mkdir()
    for number in count():
        try:
            (scene.place / "many" / str(number)).touch()
        except OSError:
            return


def fail_disk(scene: Scene) -> None:
    """Let the file system detect an error and turn read-only, even for open files."""
    os.sync()
    assert mount("-o", "remount,abort", str(scene.place))


def replace_disk(scene: Scene) -> None:
    """Mount a good volume with the same files over the failed one, in one step."""
    fresh = scene.place.parent / "fresh"
    fresh.mkdir()
    assert mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(fresh))
    subprocess.run(["cp", "--archive", f"{scene.place}/.", str(fresh)], check=True)
    assert mount("--bind", str(fresh), str(scene.place))
    subprocess.run(["umount", str(fresh)], check=True)


def clock(offset: str) -> Storm:
    """Return a clock jump, during which S3 rejects dates more than 15 minutes off."""

    def begin(scene: Scene) -> None:
        scene.proxy.inject(SKEWED, is_skewed)
        set_clock(scene.place, offset)

    return Storm(
        "clock_skew", begin, lambda scene: set_clock(scene.place, "+0"), settings=clock_settings
    )


STORMS = {
    "no inodes": Storm(
        "target_full",
        take_inodes,
        lambda scene: shutil.rmtree(scene.place / "many"),
        volume=lambda folder: small_volume(folder / "volume", "4m,nr_inodes=300"),
    ),
    "failed disk": Storm("target_denied", fail_disk, replace_disk, volume=disk),
    "clock two days ahead": clock("+2d"),
    "clock in 1970": clock("-56y"),
}


@pytest.fixture
def proxy(rclone: RcloneServer) -> Iterator[FaultProxy]:
    with FaultProxy(rclone) as proxy:
        yield proxy


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", STORMS)
def test_keeps_the_files_reports_the_cause_and_leaks_nothing_during_a_fault(
    name: str, layout: str, rclone: RcloneServer, proxy: FaultProxy, counts: Counts, tmp_path: Path
) -> None:
    storm = STORMS[name]
    with storm.volume(tmp_path) as place:
        scene = Scene(rclone, proxy, layout, place, storm.settings(tmp_path))
        with scene.daemon as daemon:
            scene.begin()
            before, pid = scene.visible, daemon.pid
            scene.change()
            storm.begin(scene)
            vitals = []
            for _ in range(counts.faulty_cycles):
                ended = scene.cycle()
                assert (storm.reason, True) == (ended["reason"], bool(ended["error"]))
                assert [] == scene.wounds(before)
                vitals.append(Vitals.of(pid))

            assert_named(scene, storm.reason)
            # asyncio adds a few threads to resolve names, one at a time.
            assert is_flat([v.descriptors for v in vitals])
            assert is_flat([v.threads for v in vitals])
            assert is_flat([v.memory_kib for v in vitals], times=1.1)
            storm.end(scene)
            wait_until(scene.is_in_step, "the storm is over", 120)
            assert pid == daemon.pid and daemon.is_running()
            ready, status = daemon.get("/readyz").json(), daemon.status()
            assert (True, None) == (ready["ready"], ready["reason"])
            assert 0 == status["consecutive_failures"]
            assert [] == leftovers(daemon.target)
            assert [] == daemon.stray_lines


def assert_named(scene: Scene, reason: str) -> None:
    """Assert that the daemon is alive and ready, and reports the reason everywhere."""
    daemon = scene.daemon
    ready, metrics = daemon.get("/readyz"), daemon.metrics()
    assert (200, True, reason) == (ready.status, ready.json()["ready"], ready.json()["reason"])
    assert reason == daemon.status()["last_error"]["reason"]
    labels = f'{{reason="{reason}",sidecar="s3-sync"}}'
    counted = ("sidecar_failures_total", "s3_sync_unread_objects")
    assert max(metrics.get(f"{name}{labels}", 0) for name in counted) >= 1
    assert 1 == metrics['sidecar_ready{sidecar="s3-sync"}']
    assert 200 == daemon.get("/healthz").status
