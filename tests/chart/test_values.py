"""
What `make values` prints and says; `test_render.py` renders it.
"""

import os
import re
import subprocess
import sys

import pytest
import yaml

from sidecar_values import deployment
from sidecar_values.files import SOURCE
from tests import ROOT
from tests.chart import files, printed
from tests.chart.printed import choice
from tests.chart.stacks import PRD


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
def test_says_first_what_to_create_and_to_change(command: str) -> None:
    text = files.text(command)
    head = "".join(re.findall(r"\A(?:#.*\n|\n)+", text))
    told = re.findall(r"create -n airflow (?:secret generic|configmap) (\S+)", head)
    needs = r"(?:secretName|credentialsSecret|(?:configMap|secretKeyRef):\n +name): ([\w-]+)$"

    assert {*told} == {*re.findall(needs, text, re.MULTILINE)}
    for word in ("GATE_GRAMMAR", "view_url_template", "2.11.2", "roleArn"):
        assert (word in text.removeprefix(head)) == (word in head), word
    assert "replaces yours" in head
    assert ("dags-folder" in head) == bool(choice(command)["VERSIONS"])
    assert printed.is_pinned(choice(command)) == ("airflow_local_settings.py" in head)


REFUSED = {
    "AIRFLOW=1": "AIRFLOW=1: write 3 or 2, or omit it",
    "SOURCE=relase": "did you mean release?",
    "EXECUTOR=kubernetesexecutor": "did you mean KubernetesExecutor?",
    "": "nothing to run: write SOURCE=listing, release, git, chart-git, KERBEROS=1",
    "SOURCE=listing KERBEROS": "KERBEROS has no value: write NAME=VALUE",
    "KERBEROS=init EXECUTOR=CeleryExecutor": "write EXECUTOR=KubernetesExecutor",
    "KERBEROS=1 GATE=1": "GATE=1: write SOURCE=listing, release",
    "SOURCE=chart-git GATE=1 EXECUTOR=KubernetesExecutor": "write SOURCE=git: ",
    "SOURCE=chart-git VERSIONS=1": "VERSIONS=1: write AIRFLOW=3, and SOURCE=",
    "SOURCE=git ENDPOINT=ca": "ENDPOINT=ca: write SOURCE=listing or release",
    "SOURCE=git LAYOUT=snapshot": "LAYOUT=snapshot: write SOURCE=listing, or omit it:",
    "SOURCE=listing SIGNED=1": "SIGNED=1: write SOURCE=release",
    "SOURCE=release VERSIONS=1 AIRFLOW=2": "VERSIONS=1: write AIRFLOW=3, and SOURCE=",
    "SOURCE=git VERSIONS=1": "SOURCE=git VERSIONS=1: write EXECUTOR=LocalExecutor",
    "SOURCE=git ENV=dev": "ENV=dev: write one of AIRFLOW, EXECUTOR, SOURCE",
    "SOURCE=git EXECUTER=LocalExecutor": "did you mean EXECUTOR=LocalExecutor?",
    "SOURCE=git kerberos=1": "did you mean KERBEROS=1?",
}


@pytest.mark.parametrize(("words", "says"), REFUSED.items())
def test_command_says_in_one_line_what_to_write_instead(words: str, says: str) -> None:
    done = print_values(*words.split())

    assert 2 == done.returncode, done.stdout
    (line,) = done.stderr.splitlines()
    assert says in line


@pytest.mark.parametrize("words", ["ENV=prd", "", "SOURCE=listing KERBEROS", "TAG=1"])
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
