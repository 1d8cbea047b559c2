"""
What `make values` prints and says; `test_render.py` renders it.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sidecar_values import deployment
from sidecar_values.files import SOURCE
from tests.chart import files, printed
from tests.chart.printed import choice
from tests.chart.rendering import CAN_RENDER, HOW_TO_RENDER, render
from tests.chart.sidecars import Values
from tests.chart.stacks import PRD

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize("command", [*printed.FEW, PRD[0]])
def test_prints_what_was_asked_and_says_first_what_to_create(command: str) -> None:
    asked, text = choice(command), files.text(command)
    head, _, _ = text.partition("\nsidecars:")
    told = re.findall(r"kubectl create (?:secret generic|configmap) (\S+)", head)
    needs = r'"(?:secretName|configMap": {"name)": "([\w-]+)"'
    release = asked["SOURCE"] == "release"
    is_pinned = release and asked["EXECUTOR"][:1] == "K" and not asked["VERSIONS"]
    config: Values = {"dag_processor": {"refresh_interval": 30}}
    if asked["AIRFLOW"] == "2":
        config = {"scheduler": {"dag_dir_list_interval": 30}}
    values = files.load(command)

    assert {*told} == {*re.findall(needs, json.dumps(values))}
    assert is_pinned == ("airflow_local_settings.py" in head)
    assert bool(asked["GATE"]) == ("GATE_GRAMMAR" in head)
    assert bool(asked["SIGNED"]) == ("name: S3_SYNC_TRUSTED_KEYS" in text)
    assert (config if asked["SOURCE"] else None) == values.get("config")


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
        ("SOURCE=release", "SOURCE=release: write EXECUTOR=LocalExecutor, Celery"),
        (
            "SOURCE=listing VERSIONS=1",
            "VERSIONS=1: write AIRFLOW=3, and SOURCE=release or git\n",
        ),
        (
            "SOURCE=git VERSIONS=1",
            "SOURCE=git VERSIONS=1: write EXECUTOR=LocalExecutor, Celery",
        ),
        ("SOURCE=git ENV=dev", "ENV=dev: write one of AIRFLOW, EXECUTOR, SOURCE"),
        (
            "SOURCE=git EXECUTER=LocalExecutor",
            "EXECUTER=LocalExecutor: write EXECUTOR=LocalExecutor, or omit it\n",
        ),
    ],
)
def test_command_says_what_to_write_instead(words: str, says: str) -> None:
    done = print_values(*words.split())

    assert 2 == done.returncode, done.stdout
    assert done.stderr.startswith(says), done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "SOURCE=list",
        "EXECUTER=LocalExecutor SOURCE=listing",
        "ENV=prd",
        "",
        "SOURCE=listing KERBEROS",
    ],
)
def test_refused_make_prints_what_no_program_takes_for_values(words: str) -> None:
    done = subprocess.run(
        ["make", "values", f"PYTHON={sys.executable}", *words.split()],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 2 == done.returncode, done.stdout
    assert ": write " in done.stderr
    with pytest.raises(yaml.YAMLError, match="make-values-was-refused"):
        yaml.safe_load(done.stdout)


@pytest.mark.skipif(not CAN_RENDER, reason=HOW_TO_RENDER)
def test_helm_refuses_the_file_of_a_refused_command(tmp_path: Path) -> None:
    path = tmp_path / "sidecars.yaml"
    path.write_text(print_values("SOURCE=list").stdout)

    with pytest.raises(AssertionError, match="make-values-was-refused"):
        render(tmp_path, (str(path),))
