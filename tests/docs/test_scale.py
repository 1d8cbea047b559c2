"""
What `how-it-scales.md` says of a thousand pods follows from what was measured.
"""

from __future__ import annotations

import math
import re

import pytest

from tests.docs.code import ROOT
from tests.docs.test_costs import GET_DOLLARS, LIST_DOLLARS, POLLS, number
from tests.docs.test_costs import TEXT as COSTS

TEXT = (ROOT / "docs/explanation/how-it-scales.md").read_text()
BENCHMARKS = (ROOT / "docs/reference/benchmarks.md").read_text()
INTERVAL_SECONDS = 10
# Another machine gives other figures; the page need not follow each of them.
NEAR = 0.5


def rows(heading: str) -> list[list[str]]:
    """
    Return the cells of the first table in a section, without its head.
    """
    section = TEXT.split(f"## {heading}\n")[1].partition("\n## ")[0]
    lines = re.findall(r"^\| (.+) \|$", section, re.MULTILINE)
    return [line.split(" | ") for line in lines[1:]]


@pytest.mark.parametrize("row", rows("What the sources are asked"))
def test_sources_are_asked_so_many_times_a_second(row: list[str]) -> None:
    pods = number(row[0])
    polls = pods / INTERVAL_SECONDS
    tickets = pods * 2 / 3_600
    rounded = round(tickets, 1 - math.floor(math.log10(tickets)))

    assert [polls, polls * 10, polls] == [float(cell.replace(",", "")) for cell in row[1:4]]
    assert float(row[4]) == pytest.approx(rounded, rel=0.1)


def poll_milliseconds(tool: str) -> float | None:
    """
    Return the CPU of a poll at 1,000 files, from the page of benchmarks; None where there is none.
    """
    name = {"`aws s3 sync` in a loop": "aws s3 sync"}.get(tool, tool).replace(", listing", "")
    table = BENCHMARKS.split("Poll that finds no change, 1,000 files")[1].partition("\n\n")[0]
    tool = rf"^\| \**{re.escape(name)}\**"
    found = re.search(rf"{tool} \| ([\d.]+) ms", table, re.MULTILINE)
    found = found or re.search(rf"{tool} \| 1,000 \| ([\d.]+) ms", BENCHMARKS, re.MULTILINE)
    assert found or name.startswith("git-sync"), name
    return float(found[1]) if found else None


@pytest.mark.parametrize("row", rows("What it costs in the pods"), ids=lambda row: row[0])
def test_polls_cost_what_the_benchmarks_say(row: list[str]) -> None:
    milliseconds, measured = float(row[1].removesuffix(" ms")), poll_milliseconds(row[0])

    assert measured is None or milliseconds == pytest.approx(measured, rel=NEAR)
    assert float(row[2]) == pytest.approx(milliseconds / INTERVAL_SECONDS, rel=0.05)


def test_dollars_are_those_of_the_page_of_costs() -> None:
    month = "| 1,000 | 1,296.00 | 12,960.00 | 103.68 |"

    assert month in COSTS
    assert "1,296.00 dollars a month for a listing, 103.68 for releases" in TEXT


def test_small_fleets_cost_what_the_decision_says() -> None:
    listing, release = 10 * POLLS * LIST_DOLLARS, 100 * POLLS * GET_DOLLARS
    slow = 100 * POLLS / 6 * LIST_DOLLARS

    assert f"nothing to set up, {listing:.0f} dollars a month" in TEXT
    assert f"{release:.0f} dollars a month, or {slow:.0f} |" in TEXT


def test_fleets_that_start_at_once_ask_for_what_the_page_says() -> None:
    assert f"{1_000 * 1_000:,} GETs: {math.ceil(1_000_000 / 5_500)} s at least" in TEXT
    assert "S3 takes 5,500 GETs a second for a prefix" in COSTS
    assert f"ask {1_000 / (60 - 15) / 60:.2f} times a second" in TEXT
    assert 600 / 60 == 100 / INTERVAL_SECONDS  # GitLab's limit is reached by 100 pods
    assert f"{50 / INTERVAL_SECONDS:.0f} polls a second" in TEXT
    assert f"{500 / 60:.0f} polls a second" in TEXT
