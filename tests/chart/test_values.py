"""
The output of `make values` for each combination of words; `test_render.py` renders it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from scripts import snippets
from tests.chart import files
from tests.chart.rendered.printed import ALL, DOZEN, Choice, pairs
from tests.chart.rules import checks

ROOT = Path(__file__).parents[2]
each_choice = pytest.mark.parametrize("name", ALL)


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """
    Run the script of `make values`.
    """
    return subprocess.run(
        [sys.executable, "-m", "scripts.snippets", "values", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_generated_files_match_their_source() -> None:
    for path, text in snippets.files().items():
        assert text == path.read_text(), f"{path}: run `make snippets`"


def test_sidecar_containers_appear_only_in_generated_files() -> None:
    written = {
        path
        for path in files.SNIPPETS.rglob("*.y*ml")
        if "readOnlyRootFilesystem" in path.read_text()
    }

    by_the_chart = {
        files.SNIPPETS / f"git-sync-wrapper.{kind}.yaml" for kind in ("chart", "codecommit")
    }
    assert written - by_the_chart == snippets.files().keys() & written
    assert written >= by_the_chart


def test_dozen_covers_every_pair_of_words() -> None:
    every = set().union(*map(pairs, ALL.values()))

    assert every == set().union(*map(pairs, DOZEN.values()))
    assert 144 == len(ALL)
    assert len(DOZEN) <= 12


@pytest.mark.parametrize("name", DOZEN)
def test_printed_values_pass_yamllint_and_use_every_anchor(name: str) -> None:
    text = files.text(name)
    config = YamlLintConfig((ROOT / ".yamllint").read_text())
    anchors, aliases = (
        set(re.findall(rf"[ -] \{mark}([a-z-]+)$", text, re.MULTILINE)) for mark in "&*"
    )

    assert [] == [str(one) for one in linter.run(text, config)]
    assert anchors == aliases


@each_choice
def test_printed_values_contain_only_keys_that_the_deployment_needs(name: str) -> None:
    choice, values = ALL[name], files.load(name)
    executor, source, is_pods = choice["EXECUTOR"], choice["SOURCE"], "Kubernetes" in name

    assert values.keys() - {"airflowVersion", "images"} == {
        *("sidecars", "executor", "config", "dagProcessor", "triggerer"),
        *(
            ["scheduler"]
            if executor == "LocalExecutor" or (is_pods and source == "release")
            else []
        ),
        *(["workers"] if executor != "LocalExecutor" else []),
        *(
            ["webserver" if choice["AIRFLOW"] == "2" else "apiServer"]
            if choice["SYNC_PERM"]
            else []
        ),
    }
    assert ("airflowVersion" in values) == ("images" in values) == (choice["AIRFLOW"] == "2")
    assert values.get("workers", {}).keys() <= {"kubernetes" if is_pods else "celery"}
    assert values["sidecars"].keys() == {
        *("registry", "gitSync") * (source == "git"),
        *("registry", "roleArn", "bucket", "s3Sync") * (source != "git"),
        *["kerberos"] * bool(choice["KERBEROS"]),
        *["syncPerm"] * bool(choice["SYNC_PERM"]),
    }


@each_choice
def test_comment_of_a_component_states_what_its_pods_wait_for(name: str) -> None:
    text, values = files.text(name), files.load(name)
    place = "git" if ALL[name]["SOURCE"] == "git" else "S3"
    for path, component in checks.components(values):
        top = path.split(".")[1]
        block = re.search(rf"((?:^#.*\n)+){top}:", text, re.MULTILINE)
        assert block, path
        starts = {one["name"] for one in component.get("extraInitContainers", [])}

        assert bool(starts - {"kerberos"}) == bool(
            re.search(rf"\b[Ww]aits? for {place}\b", block[1])
        )
        assert ("kerberos" in starts) == bool(re.search(r"\b[Ww]aits? for .*\bKDC\b", block[1]))


@pytest.mark.parametrize("source", ["listing", "release", "git"])
def test_dev_and_prd_differ_only_in_names_times_and_gate(source: str) -> None:
    choice = {**next(iter(ALL.values())), "SOURCE": source, "EXECUTOR": "KubernetesExecutor"}
    dev, prd = (snippets.values({**choice, "ENV": env}).splitlines() for env in ("dev", "prd"))
    different = {line.strip() for line in {*dev} ^ {*prd} if not line.startswith("#")}

    keys = {one.removeprefix("- ").partition(":")[0] for one in different}
    assert keys <= {"roleArn", "bucket", "interval", "period", "ref", "name", "value"}
    names = {one.removeprefix("- name: ") for one in different if one.startswith("- name")}
    assert {"GATE", "GATE_GRAMMAR"} == {
        re.sub("^(S3_SYNC|GIT_SYNC_WRAPPER)_", "", one) for one in names
    }


def test_command_prints_only_the_values() -> None:
    choice = {"AIRFLOW": "3", "EXECUTOR": "LocalExecutor", "SOURCE": "git", "ENV": "dev"}

    done = make(*(f"{name}={word}" for name, word in choice.items()))

    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout == snippets.values({**dict.fromkeys(snippets.CHOICES, ""), **choice})
    assert yaml.safe_load(done.stdout)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("AIRFLOW=2.11", "AIRFLOW=2.11: write 2 or 3"),
        (
            "EXECUTOR=Local",
            "EXECUTOR=Local: write LocalExecutor or CeleryExecutor or KubernetesExecutor",
        ),
        ("SOURCE=", "SOURCE=: write listing or release or git"),
        ("ENV=prod", "ENV=prod: write dev or prd"),
        ("KERBEROS=yes", "KERBEROS=yes: write 1, or omit it"),
        ("SYNC_PERM=0", "SYNC_PERM=0: write 1, or omit it"),
    ],
)
def test_a_wrong_word_causes_one_error_that_lists_the_allowed_words(word: str, says: str) -> None:
    words = ["AIRFLOW=3", "EXECUTOR=LocalExecutor", "SOURCE=listing", "ENV=dev"]
    words = [one for one in words if one.partition("=")[0] != word.partition("=")[0]]

    done = make(*words, word)

    assert (2, "", f"{says}\n") == (done.returncode, done.stdout, done.stderr)


def test_make_passes_every_word_to_the_script() -> None:
    done = subprocess.run(
        [
            "make",
            "--dry-run",
            "--no-print-directory",
            "values",
            *(f"{name}=x" for name in snippets.CHOICES),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert [f"'{name}=x'" for name in snippets.CHOICES] == done.stdout.split(" values ")[1].split()


def test_every_combination_prints_different_values() -> None:
    def printed(choice: Choice) -> str:
        return "\n".join(one for one in snippets.values(choice).splitlines() if "#" not in one)

    assert len(ALL) == len({printed(choice) for choice in ALL.values()})
