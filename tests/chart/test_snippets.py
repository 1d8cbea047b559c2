"""
Every snippet is valid as it is.
"""

from __future__ import annotations

import re

import pytest

from s3_sync.release.format import manifest_key
from tests.chart import files
from tests.chart.files import ELSEWHERE, FILES, OBJECTS, PATCHES, SNIPPETS, VALUES, ours
from tests.chart.rendered import printed
from tests.chart.rules import checks
from tests.chart.rules.sidecars import environment

# Files whose content other tests check.
OTHERS = [
    str(path.relative_to(SNIPPETS))
    for folder in ("kustomize", "monitoring")
    for path in sorted((SNIPPETS / folder).rglob("*.yaml"))
]


@pytest.mark.parametrize("name", [*FILES, *printed.ALL])
def test_values_are_valid_for_kubernetes_and_the_sidecars(name: str) -> None:
    for values in files.stacks(name, files.load(name)):
        assert [] == checks.complaints(values)


@pytest.mark.parametrize("name", [*VALUES, *OBJECTS, *PATCHES, *OTHERS])
def test_file_starts_with_a_three_line_comment(name: str) -> None:
    first, second, third, fourth = files.text(name).splitlines()[:4]

    assert first.startswith("# For: ")
    assert re.match(r"# Official chart 1\.22\.0[,; ].*(\bAirflow\b|`verify`)", second)
    assert third.startswith("# Change: ")
    assert not fourth.startswith("#")


def test_every_file_is_checked() -> None:
    names = {str(path.relative_to(SNIPPETS)) for path in SNIPPETS.rglob("*.y*ml")}

    assert {*FILES, *OBJECTS, *PATCHES} == {
        name for name in names if name.partition("/")[0] not in ELSEWHERE
    }


def test_view_url_points_to_the_manifest_of_the_release_in_the_s3_console() -> None:
    values = files.load("s3-sync.versions.yaml")
    (bundle,) = values["dagProcessor"]["dagBundleConfigList"]

    for container in ours(values):
        given = environment(container)
        page = f"https://console.aws.amazon.com/s3/object/{given['AWS_BUCKET']}"
        key = f"{given['KEY_PATH']}/{manifest_key('{version}')}"
        assert f"{page}?prefix={key}" == bundle["kwargs"]["view_url_template"]


def test_values_add_no_ordinary_container_to_task_pods() -> None:
    assert [] == [one for one in files.task_pods() if "extraContainers" in one]


def test_sync_perm_is_identical_for_the_webserver_and_the_api_server() -> None:
    values = files.load("sync-perm.extra.yaml")

    assert values.keys() == {"webserver", "apiServer"}
    assert values["webserver"] == values["apiServer"]
