"""
The files of charts-snippets, and what `make values` prints; `test_render.py` renders both.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from s3_sync.release.format import manifest_key
from sidecar_values import deployment
from sidecar_values.files import SOURCE
from sidecar_values.files import files as generated
from tests.chart import files
from tests.chart.printed import ALL, FEW, choice, pairs
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


def test_sidecar_containers_appear_only_in_generated_files() -> None:
    written = {
        str(path.relative_to(files.SNIPPETS))
        for path in files.SNIPPETS.rglob("*.y*ml")
        if "readOnlyRootFilesystem" in path.read_text() and path not in generated()
    }

    # The first is a container of the chart, the second the quickstart's S3 server.
    assert {"git-sync-wrapper.chart.yaml", "quickstart/s3.yaml"} == written


def test_a_few_commands_cover_every_pair_of_words() -> None:
    assert set().union(*map(pairs, ALL.values())) == set().union(*map(pairs, FEW.values()))
    assert len(FEW) <= 20


@pytest.mark.parametrize("name", [*FEW, *generated()], ids=str)
def test_generated_values_pass_yamllint_and_use_every_anchor(name: str | Path) -> None:
    text = files.text(str(name))
    config = YamlLintConfig((ROOT / ".yamllint").read_text())
    anchors, aliases = (
        set(re.findall(rf"[ -] \{mark}([a-z-]+)$", text, re.MULTILINE)) for mark in "&*"
    )

    assert [] == [str(one) for one in linter.run(text, config)]
    assert anchors == aliases


def test_every_combination_is_yaml_with_only_the_keys_that_it_needs() -> None:
    for name, words in ALL.items():
        values = files.load(name)
        executor, source = words["EXECUTOR"], words["SOURCE"]
        tasks = bool(source or words["KERBEROS"])
        pins = (source, executor, words["VERSIONS"]) == ("release", "KubernetesExecutor", "")
        webs = {"2": {"webserver"}, "3": {"apiServer"}, "": {"webserver", "apiServer"}}
        assert values.keys() == {
            "sidecars",
            *(["executor"] if executor else []),
            *(["airflowVersion", "images"] if words["AIRFLOW"] == "2" else []),
            *(["config", "dagProcessor"] if source else []),
            *(["env", "volumes", "volumeMounts"] if words["VERSIONS"] else []),
            *(["triggerer"] if tasks else []),
            *(["scheduler"] if tasks and (executor == "LocalExecutor" or pins) else []),
            *(["workers"] if tasks and executor != "LocalExecutor" else []),
            *(webs[words["AIRFLOW"]] if words["SYNC_PERM"] else []),
        }, name
        assert "{{ .Values.sidecars" not in str(values), name


def test_the_block_contains_only_what_the_lists_refer_to() -> None:
    for name in ALL:
        used = set(re.findall(r"\.Values\.sidecars\.([\w.]+)", files.text(name)))
        block = yaml.safe_load(files.text(name))["sidecars"]
        leaves = {
            f"{key}.{inner}" if isinstance(value, dict) else key
            for key, value in block.items()
            for inner in (value if isinstance(value, dict) else [key])
        }
        assert leaves == used, name


def test_gate_is_the_only_difference_that_gate_makes_to_a_release() -> None:
    words = "make values EXECUTOR=KubernetesExecutor SOURCE=release"
    without, gated = (files.text(one).splitlines() for one in (words, f"{words} GATE=1"))
    added = {line.strip() for line in {*gated} - {*without} if not line.strip().startswith("#")}

    assert {"- name: S3_SYNC_GATE", "value: syntax", "- name: S3_SYNC_GATE_GRAMMAR"} <= added
    assert 4 == len(added)


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


def published() -> list[Values]:
    text = (files.SNIPPETS / "published-examples.md").read_text()
    return [yaml.safe_load(one) for one in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


@needs_chart
def test_the_published_example_has_unknown_keys_and_its_correction_has_none() -> None:
    before, after = published()

    assert {"$.worker", "$.extraVolumes", "$.extraVolumeMounts"} == {*unknown_keys(before)}
    assert [] == unknown_keys(after)
    (container,) = after["workers"]["celery"]["extraContainers"]
    assert {one["name"]: one["value"] for one in container["env"]} == {
        one["name"]: one["value"] for one in before["worker"]["extraContainers"][0]["env"]
    }


@pytest.mark.parametrize("name", [*EVERY, *files.OBJECTS])
def test_file_starts_with_a_three_line_comment(name: str) -> None:
    first, second, third, fourth = files.text(name).splitlines()[:4]

    assert first.startswith("# For: ")
    assert re.match(r"# Official chart 1\.22\.0[,; ].*\bAirflow\b", second)
    assert third.startswith("# Change: ")
    assert not fourth.startswith("#")


def test_dev_and_prd_set_the_same_keys() -> None:
    def leaves(values: Values, path: str = "") -> set[str]:
        inner = {key: value for key, value in values.items() if isinstance(value, dict)}
        found = {f"{path}{key}" for key in values.keys() - inner.keys()}
        return found.union(*(leaves(value, f"{path}{key}.") for key, value in inner.items()))

    dev, prd = leaves(files.load("values-dev.yaml")), leaves(files.load("values-prd.yaml"))

    assert dev == prd


def test_view_url_points_to_the_manifest_of_the_release_in_the_s3_console() -> None:
    values = files.load("make values EXECUTOR=CeleryExecutor SOURCE=release VERSIONS=1")
    (bundle,) = values["dagProcessor"]["dagBundleConfigList"]
    page = f"https://console.aws.amazon.com/s3/object/{values['sidecars']['bucket']}"
    key = f"{values['sidecars']['s3Sync']['keyPath']}/{manifest_key('{version}')}"

    assert f"{page}?prefix={key}" == bundle["kwargs"]["view_url_template"]
