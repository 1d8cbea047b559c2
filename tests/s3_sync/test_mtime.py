"""Modification times, which tell Python and Airflow that a file changed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.s3_sync.process import Process


@pytest.mark.parametrize("layout", [{}, {"S3_SYNC_LAYOUT": "snapshot"}], ids=str)
def test_python_never_runs_stale_bytecode_after_edits_of_the_same_size(
    process: Process, layout: dict[str, str], tmp_path: Path
) -> None:
    """Bytecode may be beside the snapshots, where it belongs to a path, whatever is shown there."""
    process.s3.put("pkg/__init__.py", b"")
    process.s3.put("pkg/answer.py", b"VALUE = 1000\n")
    process.run(layout)
    folder = process.folder / ("current" if layout else "")
    imported = [_import_answer(folder, tmp_path / "bytecode")]
    numbers = [1001, 1002, 1001, 1003, 1000]
    for number in numbers:
        process.s3.put("pkg/answer.py", b"VALUE = %d\n" % number)
        process.cycle()
        imported.append(_import_answer(folder, tmp_path / "bytecode"))

    assert [1000, *numbers] == imported
    assert list((tmp_path / "bytecode").rglob("answer.*.pyc"))


def _import_answer(target: Path, bytecode: Path) -> int:
    """Import a module in a separate process, which leaves bytecode behind."""
    where = {"PYTHONPATH": str(target), "PYTHONPYCACHEPREFIX": str(bytecode)}
    answer = subprocess.run(
        [sys.executable, "-c", "from pkg.answer import VALUE; print(VALUE)"],
        env={"PATH": "/usr/bin:/bin", **where},
        check=True,
        capture_output=True,
        text=True,
    )
    return int(answer.stdout)
