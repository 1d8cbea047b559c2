"""
The ratios on the front page are those of the benchmarks, as round numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.docs.code import ROOT

README = (ROOT / "README.md").read_text()
BENCHMARKS = (ROOT / "docs/reference/benchmarks.md").read_text()
# A round number may be so far from the last measurement, on either side.
NEAR = 1.6


def measured(row: str) -> float:
    """
    Return the ratio that a row of the benchmarks ends with.
    """
    found = re.search(rf"^\| {row} .*\| 1/([\d,.]+) \|", BENCHMARKS, re.MULTILINE)
    assert found, row
    return float(found[1].replace(",", ""))


def of_a_refresh() -> float:
    """
    Return how many times more CPU a refresh takes in `airflow kerberos`.
    """
    ours, airflow = (
        float(re.findall(rf"^\| {name} .*?\| ([\d.]+) ms", BENCHMARKS, re.MULTILINE)[0])
        for name in (r"\*\*kerberos\*\*", "airflow kerberos")
    )
    return airflow / ours


RATIOS: dict[str, Callable[[], list[float]]] = {
    "s3-sync": lambda: [
        measured("poll, 1,000 files, CPU, of aws s3 sync"),
        measured("release, poll, 1,000 files, CPU, of aws s3 sync"),
    ],
    "git-sync-wrapper": lambda: [measured("poll, 1,000 files, CPU, of git-sync")],
    "sync-perm": lambda: [measured(r"an hour of \*\*sync-perm\*\*")],
    "kerberos": lambda: [of_a_refresh()],
}


@pytest.mark.parametrize("name", RATIOS)
def test_front_page_claims_what_was_measured(name: str) -> None:
    row = re.search(rf"^\| \[{name}\].*$", README, re.MULTILINE)
    assert row
    claimed = [float(one.replace(",", "")) for one in re.findall(r"1/([\d,]+)", row[0])]

    for claim, ratio in zip(claimed, RATIOS[name](), strict=True):
        assert 1 / NEAR < claim / ratio < NEAR, f"{claim} on the page, {ratio} measured"
