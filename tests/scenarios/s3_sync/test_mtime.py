"""Modification times: what Python and Airflow tell a change by."""

import subprocess
import sys
import time
from pathlib import Path

from tests.scenarios.s3_sync.histories import Bucket
from tests.support.daemon import Daemon
from tests.support.servers import MotoServer


def test_changed_file_is_younger_by_a_whole_second_and_unchanged_files_keep_their_time(
    moto: MotoServer, tmp_path: Path
) -> None:
    bucket = Bucket(moto)
    bucket.put("changing.py", b"x = 0\n")
    bucket.put("still.py", b"y = 0\n")
    target = tmp_path / "target"
    began = time.time()
    with Daemon(moto, bucket.name, target) as daemon:
        daemon.wait_until_synced()
        still = (target / "still.py").stat().st_mtime_ns
        seconds = [_second(target / "changing.py")]
        for number in range(1, 6):
            bucket.put("changing.py", b"x = %d\n" % number)
            daemon.sync()
            seconds.append(_second(target / "changing.py"))
        daemon.terminate()
        daemon.start()
        daemon.wait_until_synced()

    assert sorted(set(seconds)) == seconds
    assert int(began) <= seconds[0] <= time.time()
    assert still == (target / "still.py").stat().st_mtime_ns


def test_python_never_runs_stale_bytecode_after_edits_of_the_same_size(
    moto: MotoServer, tmp_path: Path
) -> None:
    bucket = Bucket(moto)
    target = tmp_path / "target"
    bucket.put("pkg/__init__.py", b"")
    bucket.put("pkg/answer.py", b"VALUE = 1000\n")
    with Daemon(moto, bucket.name, target) as daemon:
        daemon.wait_until_synced()
        imported = [_import_answer(target)]
        for number in range(1001, 1006):
            bucket.put("pkg/answer.py", b"VALUE = %d\n" % number)
            daemon.sync()
            imported.append(_import_answer(target))

    assert list(range(1000, 1006)) == imported
    assert list((target / "pkg/__pycache__").glob("answer.*.pyc"))


def _second(path: Path) -> int:
    return int(path.stat().st_mtime)


def _import_answer(target: Path) -> int:
    """Import a module in a process of its own, which leaves bytecode behind."""
    answer = subprocess.run(
        [sys.executable, "-c", "from pkg.answer import VALUE; print(VALUE)"],
        cwd=target,
        env={"PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
        text=True,
    )
    return int(answer.stdout)
