"""
What `make values` prints and says; `test_render.py` renders it.
"""

import os
import subprocess
import sys

import pytest

from sidecar_values import deployment
from sidecar_values.files import SOURCE
from tests.chart.printed import choice


def print_values(*words: str) -> subprocess.CompletedProcess[str]:
    """
    Run the program of `make values`, with nothing but the standard library.
    """
    return subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(SOURCE)!r}); "
            "sys.argv[1:] = " + repr([*words]) + "; from runpy import run_module; "
            "run_module('sidecar_values', run_name='__main__')",
        ],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_needs_only_the_standard_library_and_prints_only_the_values() -> None:
    words = ("AIRFLOW=3", "EXECUTOR=LocalExecutor", "SOURCE=git")

    done = print_values(*words)

    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout == deployment.values(
        choice(" ".join(["make", "values", *words]))
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("AIRFLOW=1", "AIRFLOW=1: write 3 or 2, or omit it\n"),
        ("KERBEROS=yes", "KERBEROS=yes: write 1, or omit it\n"),
        (
            "",
            "nothing to run: write SOURCE=listing, release or git, KERBEROS=1 or SYNC_PERM=1\n",
        ),
        ("KERBEROS=1 GATE=1", "GATE=1: write SOURCE=listing, release or git\n"),
        ("SOURCE=listing SIGNED=1", "SIGNED=1: write SOURCE=release\n"),
        (
            "SOURCE=listing VERSIONS=1",
            "VERSIONS=1: write AIRFLOW=3, and SOURCE=release or git\n",
        ),
        (
            "SOURCE=git VERSIONS=1",
            "SOURCE=git VERSIONS=1: write EXECUTOR=LocalExecutor, Celery",
        ),
        ("SOURCE=git ENV=dev", "ENV=dev: write one of AIRFLOW, EXECUTOR, SOURCE"),
    ],
)
def test_command_says_what_to_write_instead(words: str, says: str) -> None:
    done = print_values(*words.split())

    assert (2, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith(says)
