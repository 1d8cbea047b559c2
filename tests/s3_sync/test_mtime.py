"""Modification times, which tell Python and Airflow that a file changed."""

import subprocess
import sys
from pathlib import Path

from tests.s3_sync.process import Process


def test_python_never_runs_stale_bytecode_after_edits_of_the_same_size(process: Process) -> None:
    process.s3.put("pkg/__init__.py", b"")
    process.s3.put("pkg/answer.py", b"VALUE = 1000\n")
    process.run({})
    imported = [_import_answer(process.folder)]
    for number in range(1001, 1006):
        process.s3.put("pkg/answer.py", b"VALUE = %d\n" % number)
        process.cycle()
        imported.append(_import_answer(process.folder))

    assert list(range(1000, 1006)) == imported
    assert list((process.folder / "pkg/__pycache__").glob("answer.*.pyc"))


def _import_answer(target: Path) -> int:
    """Import a module in a separate process, which leaves bytecode behind."""
    answer = subprocess.run(
        [sys.executable, "-c", "from pkg.answer import VALUE; print(VALUE)"],
        cwd=target,
        env={"PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
        text=True,
    )
    return int(answer.stdout)
