"""
git-sync's own suite, the unmodified `test_e2e.sh` in GIT_SYNC_SUITE, run with the
wrapper.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import Texts
from tests.support.git import containers
from tests.support.git.git_sync import GIT_SYNC, WRAPPER
from tests.support.scripts import script

SUITE = Path(os.environ.get("GIT_SYNC_SUITE", "/nonexistent"))
REPOSITORY = Path(__file__).parents[4]
PAGE = REPOSITORY / "docs/how-to/replace-dags-git-sync.md"
IMAGE = "e2e/wrapper"
# This case needs the internet.
LEFT_OUT = {"github_https"}
SETTINGS = {
    "GIT_SYNC_WRAPPER_GIT_SYNC": "/git-sync",
    "GIT_SYNC_WRAPPER_HTTP_BIND": "127.0.0.1:0",
    # As in the image, nothing is compiled at a start; here, after the first one.
    "PYTHONPYCACHEPREFIX": "/bytecode",
}


def differing() -> set[str]:
    """Return the cases that the page lists."""
    rows = re.findall(r"^\| (`.*?) \|", PAGE.read_text(), re.MULTILINE)
    return set(re.findall(r"`(\w+)`", "".join(rows)))


def run_suite(folder: Path, chosen: set[str]) -> Texts:
    """Run all cases or the chosen ones; return the result of each."""
    folder.mkdir()
    programs = folder / "bin"
    state = folder / "containers"
    suite = folder / "suite"
    bytecode = folder.parent / "bytecode"
    for made in (programs, state, bytecode):
        made.mkdir(exist_ok=True)
    bytecode.chmod(0o777)
    shutil.copytree(SUITE, suite)
    subprocess.run(["git", "init", "-q", str(suite)], check=True)
    image = {
        "command": [str(WRAPPER)],
        "mounts": {str(GIT_SYNC): "/git-sync", str(bytecode): "/bytecode"},
        "env": SETTINGS,
    }
    (state / "images.json").write_text(json.dumps({IMAGE: image}))
    script(programs / "docker", f'exec {sys.executable} {containers.__file__} "$@"')
    script(programs / "make", "")
    # It compares numbers as text, as Go writes them.
    curl = '/usr/bin/curl "$@" | sed "s/^\\(git_.* [0-9]*\\)\\.0$/\\1/"'
    # It asks until somebody listens, which only the exit code tells.
    script(programs / "curl", f"set -o pipefail\n{curl}", "/bin/bash")
    every = re.findall(
        r"^function e2e::(\w+)", (suite / "test_e2e.sh").read_text(), re.MULTILINE
    )
    names = chosen or set(every) - LEFT_OUT
    said = subprocess.run(
        [
            "unshare",
            "--net",
            "sh",
            "-c",
            'ip link set lo up && exec ./test_e2e.sh "$@"',
            "sh",
        ]
        + [f"^{name}$" for name in sorted(names)],
        cwd=suite,
        env={
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder),
            "CONTAINERS": str(state),
            "GIT_SYNC_E2E_IMAGE": IMAGE,
            # Seconds; its default of 3 is too short on a busy machine.
            "MAXWAIT": "20",
        },
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    print(said)
    results = dict(re.findall(r"^testcase (\w+): (PASS|FAIL|SKIP)", said, re.MULTILINE))
    assert names == results.keys(), said
    return results


@pytest.mark.timeout(3_600)
@pytest.mark.usefixtures("only_in_full")
def test_all_cases_pass_except_those_that_the_page_lists(tmp_path: Path) -> None:
    if os.getuid() != 0 or not (SUITE / "test_e2e.sh").is_file():
        pytest.skip(
            "git-sync's own suite needs root, and GIT_SYNC_SUITE: the folder that has it"
        )

    named = differing()
    results = run_suite(tmp_path / "all", set())
    failed = {name for name, result in results.items() if result == "FAIL"}
    if again := failed - named:  # some cases wait only 3 s: too short on a busy machine
        results |= run_suite(tmp_path / "again", again)

    assert len(results) > 80
    assert named == {name for name, result in results.items() if result == "FAIL"}
