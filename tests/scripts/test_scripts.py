"""
The scripts: the Python that the Makefile selects, the assets of a release, and our linters.
"""

import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from scripts import lint_figures
from tests.chart.sidecars import IMAGE_PYTHON
from tests.support.scripts import script

ROOT = Path(__file__).parents[2]
REGISTRY = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/data"
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
        ["/bin/bash", ROOT / "scripts/find-python", *versions],
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


def test_release_assets_are_wheels_and_values_with_the_registry(tmp_path: Path) -> None:
    """
    `make wheels` needs .venv, so a stand-in for make writes a wheel.
    """
    copy, programs = tmp_path / "copy", tmp_path / "bin"
    subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, copy], check=True)
    programs.mkdir()
    script(programs / "make", "mkdir -p dist/wheels && touch dist/wheels/one.whl")
    project = (ROOT / "sidecars/s3-sync/pyproject.toml").read_text()
    (version,) = re.findall(r'^version = "(.+)"$', project, re.MULTILINE)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "REGISTRY": f"{REGISTRY}/"}
    command = [copy / "scripts/release-assets"]

    subprocess.run([*command, version], env=environment, check=True, capture_output=True)
    refused = subprocess.run([*command, "9.9"], env=environment, capture_output=True, text=True)

    assert f"This commit is version {version}, not 9.9" in refused.stderr
    release = copy / "dist/release"
    archive = f"values-{version}.tar.gz"
    assert {"one.whl", archive, "notes.txt"} == {path.name for path in release.iterdir()}
    with tarfile.open(release / archive) as values:
        values.extractall(tmp_path, filter="data")
    files = [path.read_text() for path in (tmp_path / "charts-snippets").rglob("*.yaml")]
    named = {name for text in files for name in re.findall(r"(\S+)/(?:your-task|dbt):", text)}
    assert {"registry.example.com"} == named
    ours = r"(?:registry: |(\S+)/(?:s3-sync|kerberos|git-sync-wrapper|sync-perm)(?::|$))"
    assert any(f"registry: {REGISTRY}\n" in text for text in files)
    assert [] == [
        line
        for text in files
        for line in text.splitlines()
        if re.search(ours, line) and "registry.example.com" in line
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("assert daemon.rss_mib() <= 45.5", True),
        ("assert seconds < 2", True),
        ("assert time.monotonic() - began <= LIMIT_SECONDS", True),
        ("assert 5 > len_of(threads) > 1", True),
        ("assert daemon.rss_mib() < 1.1 * before_mib", False),
        ("assert len(waits_seconds) > 2", False),
        ("assert 0 <= duration_seconds", False),
        ("assert 2 == wait_seconds", False),
        ("wait_until(lambda: done, 'it is done', 60)", False),
    ],
)
def test_finds_asserted_figures_of_a_machine(text: str, found: bool) -> None:
    assert found == bool([*lint_figures.finds(f"def test_it():\n    {text}\n")])
