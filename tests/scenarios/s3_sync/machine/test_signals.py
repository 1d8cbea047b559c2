"""Signals that arrive during the start or in another thread."""

import ctypes
import os
import random
import signal
import time
from pathlib import Path

from tests.scenarios.s3_sync.histories import Bucket
from tests.support.aws.servers import MotoServer
from tests.support.daemon import Daemon

SYS_TGKILL = {"x86_64": 234, "aarch64": 131}[os.uname().machine]


def test_handles_a_signal_delivered_to_another_thread(moto: MotoServer, tmp_path: Path) -> None:
    bucket = Bucket(moto)
    bucket.put("a.py", b"a")
    with Daemon(moto, bucket.name, tmp_path / "target") as daemon:
        daemon.wait_until_synced()
        daemon.sync()
        seen = len(daemon.events)
        _signal_another_thread(daemon.pid, signal.SIGHUP)
        daemon.wait_for_event("cycle_finished", after=seen)
        _signal_another_thread(daemon.pid, signal.SIGTERM)

        assert 0 == daemon.wait_for_exit().code


def test_sigterm_at_any_moment_of_the_start_exits_with_0(moto: MotoServer, tmp_path: Path) -> None:
    bucket = Bucket(moto)
    bucket.put("a.py", b"a")
    chance = random.Random(5)
    ends = []
    for _ in range(12):
        with Daemon(moto, bucket.name, tmp_path / "target") as daemon:
            daemon.wait_for_event("sidecar_started")
            # A random sleep is the only way to choose a random moment.
            time.sleep(chance.choice((0, 0.002, chance.uniform(0, 0.2))))
            ends.append(daemon.terminate())

    assert {0} == {end.code for end in ends}


def _signal_another_thread(pid: int, number: signal.Signals) -> None:
    """Signal a thread other than the main one, as the kernel does when the main one is busy."""
    threads = [int(name) for name in os.listdir(f"/proc/{pid}/task") if int(name) != pid]
    assert 0 == ctypes.CDLL(None).syscall(SYS_TGKILL, pid, threads[0], int(number))
