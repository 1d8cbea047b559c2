"""
The Python that the Makefile selects.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.chart.sidecars import IMAGE_PYTHON
from tests.support.scripts import script

FIND_PYTHON = Path(__file__).parents[2] / "scripts" / "find-python"
OURS = ".".join(map(str, IMAGE_PYTHON))
PYENV = f"versions/{OURS}.1/bin/python3"
# A shim of pyenv for a version that is not selected.
SHIM = "exit 127"


def install(machine: Path, program: str, version: str) -> None:
    path = machine / program
    path.parent.mkdir(parents=True, exist_ok=True)
    body = f'case $2 in *executable*) echo "$0" ;; *print*) echo {version}.1 ;; esac'
    script(path, body if version else SHIM)


def found(machine: Path, *versions: str, python: str = "") -> str:
    """Return the selected file of a machine with `bin` on PATH and pyenv's `versions`."""
    done = subprocess.run(
        ["/bin/bash", FIND_PYTHON, *versions],
        env={"PATH": f"{machine}/bin", "PYENV_ROOT": str(machine), "PYTHON": python},
        stdout=subprocess.PIPE,
        text=True,
    )
    return os.path.relpath(done.stdout.strip(), machine) if done.returncode == 0 else ""


@pytest.mark.parametrize(
    ("programs", "expected"),
    [
        ({f"bin/python{OURS}": OURS, "bin/python3": "3.12"}, f"bin/python{OURS}"),
        ({f"bin/python{OURS}": "", PYENV: OURS, "bin/python3": "3.12"}, PYENV),
        ({f"bin/python{OURS}": "", "bin/python3": "3.12"}, "bin/python3"),
        ({"bin/python3": "", "bin/python3.11": "3.11"}, "bin/python3.11"),
        ({"bin/python3": ""}, ""),
    ],
)
def test_prefers_the_python_of_the_images(
    tmp_path: Path, programs: dict[str, str], expected: str
) -> None:
    for program, version in programs.items():
        install(tmp_path, program, version)

    assert expected == found(tmp_path)


def test_follows_the_caller(tmp_path: Path) -> None:
    for version in (OURS, "3.12"):
        install(tmp_path, f"bin/python{version}", version)

    assert (
        "bin/python3.12" == found(tmp_path, "3.11", "3.12") == found(tmp_path, python="python3.12")
    )
    assert "" == found(tmp_path, "3.11") == found(tmp_path, python="python3.11")
