"""Modification times: what Python and Airflow tell a change by."""

import subprocess
import sys
import time
from pathlib import Path

from tests.s3_sync.process import Process
from tests.support.fake_s3 import FakeS3


def test_changed_file_is_younger_by_a_whole_second_and_unchanged_files_keep_their_time(
    s3: FakeS3, process: Process
) -> None:
    s3.put("changing.py", b"x = 0\n")
    s3.put("still.py", b"y = 0\n")
    target = process.folder
    began = time.time()
    process.run({})
    still = (target / "still.py").stat().st_mtime_ns
    seconds = [_second(target / "changing.py")]
    for number in range(1, 6):
        s3.put("changing.py", b"x = %d\n" % number)
        process.cycle()
        seconds.append(_second(target / "changing.py"))
    process.restart({})
    process.cycle()

    assert sorted(set(seconds)) == seconds
    assert int(began) <= seconds[0] <= time.time()
    assert still == (target / "still.py").stat().st_mtime_ns


def test_python_never_runs_stale_bytecode_after_edits_of_the_same_size(
    s3: FakeS3, process: Process
) -> None:
    s3.put("pkg/__init__.py", b"")
    s3.put("pkg/answer.py", b"VALUE = 1000\n")
    process.run({})
    imported = [_import_answer(process.folder)]
    for number in range(1001, 1006):
        s3.put("pkg/answer.py", b"VALUE = %d\n" % number)
        process.cycle()
        imported.append(_import_answer(process.folder))

    assert list(range(1000, 1006)) == imported
    assert list((process.folder / "pkg/__pycache__").glob("answer.*.pyc"))


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
