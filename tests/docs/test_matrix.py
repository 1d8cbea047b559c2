"""
The support page links a test for each claim, and lists the versions that the tests use.

`test_links.py` checks that the files exist.
"""

from __future__ import annotations

import re
import tomllib
from typing import get_args

import pytest

from tests.chart import kubernetes, rendering
from tests.docs.code import ROOT
from tests.support.airflow.installed import DATABASES, Kind

PAGE = (ROOT / "docs/reference/support.md").read_text()
# Cells that make no claim.
NONE = ("not tested", "does not apply", "has no bundles")


def section(title: str) -> str:
    match = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert match
    return match[1]


def dockerfile(sidecar: str) -> str:
    return (ROOT / "sidecars" / sidecar / "Dockerfile").read_text()


def claims() -> list[str]:
    """
    Return every cell of the tables, except their first rows and columns.
    """
    bodies = re.findall(r"^\|[-|]+\|\n((?:\|.+\|\n)+)", PAGE, re.MULTILINE)
    rows = [row.strip("| ").split(" | ")[1:] for body in bodies for row in body.splitlines()]
    return [cell for row in rows for cell in row]


@pytest.mark.parametrize("cell", sorted(set(claims())))
def test_every_claim_links_its_test_or_states_that_it_has_none(cell: str) -> None:
    assert "](../../tests/" in cell or cell.startswith(NONE)


def test_the_page_lists_the_versions_that_the_tests_use() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    airflow = section("Airflow")

    for version in ("2.11", "3"):
        pin = groups[f"airflow-{version}"][0].partition("==")[2]
        assert f" {pin}" in airflow
        assert f"| {'.'.join(pin.split('.')[:2])} |" in airflow
    for version in kubernetes.VERSIONS:
        assert f"\n| {version} | [" in section("Kubernetes")
    chart = re.findall(r"^\| (\d[\d.]+), ", section("Chart and Airflow"), re.MULTILINE)
    assert {re.findall(r"--version ([\d.]+)", rendering.HOW_TO_RENDER)[0]} == set(chart)
    (git_sync,) = re.findall(r"git-sync:v([\d.]+)", dockerfile("git-sync-wrapper"))
    assert f"| git-sync {git_sync} |" in section("git")
    for name in ("git-sync-wrapper", "kerberos", "s3-sync"):
        (python,) = re.findall(r"BASE_IMAGE=\S+/python:([\d.]+)-", dockerfile(name))
        assert f"| {python}, the version of the images |" in section("Python")


def test_the_page_lists_the_airflows_and_databases_of_sync_perms_tests() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    lines = re.findall(r"^\| (\d.+) \|$", section("sync-perm beside Airflow"), re.MULTILINE)
    shown = {}
    for version, *cells in (line.split(" | ") for line in lines):
        shown[version] = tuple(cell != "not tested" for cell in cells)

    wanted = {}
    for version, kinds in DATABASES.items():
        pins = dict(pin.split("==") for pin in groups[f"airflow-{version}"] if "==" in pin)
        provider = pins.get("apache-airflow-providers-fab", "part of Airflow")
        wanted[f"{pins['apache-airflow']}, {provider}"] = tuple(
            kind in kinds for kind in get_args(Kind)
        )
    assert wanted == shown


def test_both_tables_list_the_same_airflows_for_sync_perm() -> None:
    head, _, *rows = re.findall(r"^\|(.+)\|$", section("Airflow"), re.MULTILINE)
    (row,) = (row for row in rows if row.startswith(" sync-perm |"))
    pairs = zip(head.split("|")[1:], row.split("|")[1:], strict=True)
    shown = [name for names, cell in pairs if "](" in cell for name in names.strip().split(", ")]

    tested = re.findall(r"^\| (\d+\.\d+)\.\d+, ", section("sync-perm beside Airflow"), re.MULTILINE)
    assert sorted(tested) == sorted(shown)
