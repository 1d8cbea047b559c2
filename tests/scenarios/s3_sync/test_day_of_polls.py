"""
A day of polling, as fast as the daemon can: nothing grows.

8,640 polls are a day at an INTERVAL of ten seconds; here one follows the other without a pause.
Now and then the bucket changes, S3 fails, and a client reads the HTTP endpoint.
"""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.s3_sync.machine.weather import LAYOUTS, Scene, Vitals, is_flat, leftovers
from tests.support.aws.fake_s3 import error, is_list
from tests.support.aws.fault_proxy import FaultProxy
from tests.support.aws.servers import RcloneServer
from tests.support.s3_sync.scripted import new_content

CHANGE_EVERY = 25
FAIL_EVERY = 60
LOOK_EVERY = 10
SETTINGS = {"S3_SYNC_RETAIN_FOR": "0"}
PATHS = ("/healthz", "/readyz", "/metrics", "/status", "/")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_descriptors_and_disk_usage_stay_flat_over_a_day_of_polling(
    rclone: RcloneServer, tmp_path: Path, counts: Counts, layout: str
) -> None:
    vitals: list[Vitals] = []
    disk: list[tuple[int, int]] = []
    with FaultProxy(rclone) as proxy:
        proxy.page_size = 7
        scene = Scene(rclone, proxy, layout, tmp_path, SETTINGS, interval="0.1")
        with scene.daemon as daemon:
            scene.begin()
            while (polls := polls_of(scene)) < counts.polls:
                for _ in range(LOOK_EVERY):
                    scene.cycle()
                for path in PATHS:
                    assert daemon.get(path).status == 200
                if polls % CHANGE_EVERY < LOOK_EVERY:
                    change(scene)
                if polls % FAIL_EVERY < LOOK_EVERY:
                    proxy.inject(error(403, "AccessDenied"), is_list, times=1)
                vitals.append(Vitals.of(daemon.pid))
                disk.append(disk_of(daemon.target))
            assert scene.is_in_step()

            assert is_flat([v.memory_kib for v in vitals], times=1.1)
            assert is_flat([v.descriptors for v in vitals])
            assert is_flat([v.threads for v in vitals])
            assert is_flat([inodes for inodes, _ in disk])
            assert is_flat([size_bytes for _, size_bytes in disk])
            assert leftovers(daemon.target) == []
            assert list(daemon.home.iterdir()) == []
            assert daemon.stray_lines == []


def polls_of(scene: Scene) -> int:
    """Return how many cycles have ended, failed or not."""
    samples = scene.daemon.metrics().items()
    return round(sum(v for name, v in samples if name.startswith("sidecar_cycles_total")))


def change(scene: Scene) -> None:
    """Change one object, and create or delete another."""
    scene.put("a.py", new_content())
    if "coming/and/going.py" in scene.wanted:
        scene.delete("coming/and/going.py")
    else:
        scene.put("coming/and/going.py", new_content())


def disk_of(target: Path) -> tuple[int, int]:
    """Return the number of files and folders and their bytes; hard links count once."""
    found = {}
    for here, _, names in os.walk(target):
        for path in [here, *(os.path.join(here, name) for name in names)]:
            with suppress(FileNotFoundError):
                status = os.lstat(path)
                found[status.st_ino] = status.st_size
    return len(found), sum(found.values())
