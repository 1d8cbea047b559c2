"""
The tables of what polling costs follow from the prices and the numbers of requests beside them.

That these are the requests is for `tests/scenarios/s3_sync/test_release_fleet.py`.
"""

from __future__ import annotations

import re

import pytest

from tests.docs.code import ROOT

TEXT = (ROOT / "docs/explanation/what-polling-costs.md").read_text()
LIST_DOLLARS = 0.005 / 1_000
GET_DOLLARS = 0.0004 / 1_000
POLLS = 30 * 24 * 3_600 // 10


def rows(heading: str) -> list[list[str]]:
    """
    Return the cells of the table in a section, without its head.
    """
    section = TEXT.split(f"## {heading}\n")[1].partition("\n## ")[0]
    lines = re.findall(r"^\| (.+) \|$", section, re.MULTILINE)
    return [line.split(" | ") for line in lines[1:]]


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


def test_prices_are_the_ones_that_the_page_names() -> None:
    assert f"{LIST_DOLLARS * 1_000:g} dollars for LIST" in TEXT
    assert f"{GET_DOLLARS * 1_000:.4f} for GET" in TEXT
    assert f"asks {POLLS:,} times" in TEXT


@pytest.mark.parametrize("row", rows("Nothing changes"))
def test_month_of_polls_costs_what_its_requests_cost(row: list[str]) -> None:
    polls = number(row[0]) * POLLS
    dollars = (polls * LIST_DOLLARS, polls * 10 * LIST_DOLLARS, polls * GET_DOLLARS)

    assert [f"{one:,.2f}" for one in dollars] == row[1:]


@pytest.mark.parametrize("row", rows("Task pods"))
def test_task_pods_cost_what_their_requests_cost(row: list[str]) -> None:
    pods = number(row[0])
    dollars = (pods * (LIST_DOLLARS + 1_000 * GET_DOLLARS), pods * 2 * GET_DOLLARS)

    assert [f"{one:,.2f}" for one in dollars] == row[1:]


def test_release_for_a_fleet_costs_what_its_requests_cost() -> None:
    assert f"3,000 GETs: {3_000 * GET_DOLLARS:g} dollars" in TEXT
