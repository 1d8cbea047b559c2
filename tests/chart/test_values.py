"""
The files of charts-snippets, and what `make values` prints; `test_render.py` renders both.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sidecar_values import deployment
from sidecar_values.files import SOURCE
from sidecar_values.files import files as generated
from tests.chart import files
from tests.chart.printed import FEW, choice
from tests.chart.rendering import CHART
from tests.chart.sidecars import Values

ROOT = Path(__file__).parents[2]
WHOLE = ("values.yaml", "values-airflow-2.yaml", "values-dev.yaml", "values-prd.yaml")
EXAMPLES = tuple(f"examples/{one.name}" for one in (files.SNIPPETS / "examples").iterdir())
EVERY = (
    *(*files.PASTED, *WHOLE, *EXAMPLES, *FEW),
    *("git-sync-wrapper.codecommit.yaml", "quickstart/values.yaml"),
)
# Keys that the chart reads, and that its values file contains only as comments.
WITHOUT_DEFAULT = {"$.dags.gitSync.credentialsSecret", "$.dags.gitSync.emptyDirConfig"}
# Airflow options that the chart does not set.
OPTIONS = {
    "api": {"base_url"},
    "dag_processor": {"refresh_interval"},
    "logging": {"remote_base_log_folder"},
    "scheduler": {"dag_dir_list_interval"},
    "webserver": {"base_url"},
}
needs_chart = pytest.mark.skipif(
    not (CHART / "values.yaml").is_file(), reason="needs AIRFLOW_CHART"
)


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


def test_generated_files_match_their_source() -> None:
    for path, text in generated().items():
        assert text == path.read_text(), f"{path}: run `make snippets`"


def test_command_needs_only_the_standard_library_and_prints_only_the_values() -> None:
    words = ("AIRFLOW=3", "EXECUTOR=LocalExecutor", "SOURCE=git")

    done = print_values(*words)

    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout == deployment.values(choice(" ".join(["make", "values", *words])))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("AIRFLOW=1", "AIRFLOW=1: write 3 or 2, or omit it\n"),
        ("KERBEROS=yes", "KERBEROS=yes: write 1, or omit it\n"),
        ("", "nothing to run: write SOURCE=listing, release or git, KERBEROS=1 or SYNC_PERM=1\n"),
        ("KERBEROS=1 GATE=1", "GATE=1: write SOURCE=listing, release or git\n"),
        ("SOURCE=listing SIGNED=1", "SIGNED=1: write SOURCE=release\n"),
        ("SOURCE=listing VERSIONS=1", "VERSIONS=1: write AIRFLOW=3, and SOURCE=release or git\n"),
        ("SOURCE=git ENV=dev", "ENV=dev: write one of AIRFLOW, EXECUTOR, SOURCE"),
    ],
)
def test_command_says_what_to_write_instead(words: str, says: str) -> None:
    done = print_values(*words.split())

    assert (2, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith(says)


@functools.cache
def defaults() -> Values:
    """
    Return all keys that a user may set: the chart's defaults, Airflow options and `sidecars`.
    """
    found: Values = yaml.load((CHART / "values.yaml").read_text(), yaml.CSafeLoader)
    for section, options in OPTIONS.items():
        found["config"].setdefault(section, {}).update(dict.fromkeys(options, ""))
    return {**found, "sidecars": {}}


def unknown_keys(values: Values, known: Values | None = None, path: str = "$") -> list[str]:
    """
    Return keys that the chart does not read; its schema accepts most of them.

    A map that is empty by default accepts any key.
    """
    found = []
    known = defaults() if known is None else known
    for key, value in values.items():
        if f"{path}.{key}" in WITHOUT_DEFAULT:
            continue
        if key not in known:
            found.append(f"{path}.{key}")
        elif isinstance(value, dict) and isinstance(known[key], dict) and known[key]:
            found += unknown_keys(value, known[key], f"{path}.{key}")
    return found


@needs_chart
@pytest.mark.parametrize("name", EVERY)
def test_values_have_only_keys_that_the_chart_reads(name: str) -> None:
    assert [] == unknown_keys(yaml.safe_load(files.text(name)))
