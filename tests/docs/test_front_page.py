"""
The ratios and the memory on the front page are those of the benchmarks, as round numbers.
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
NEAR_MIB = 4


def measured(what: str) -> float | None:
    """
    Return the ratio of a budget's row; None where the last run had nothing to measure it with.
    """
    found = re.search(rf"^\| {what} \| [^|]+ \| 1/([\d,.]+) \|", BENCHMARKS, re.MULTILINE)
    return float(found[1].replace(",", "")) if found else None


def of_a_refresh() -> float | None:
    """
    Return how many times more CPU a refresh takes in `airflow kerberos`; None where it was missing.
    """
    row = r"^\| \**{}\** [^|]*\| [^|]+ \| ([\d.]+) ms"
    ours, airflow = (
        re.search(row.format(name), BENCHMARKS, re.MULTILINE)
        for name in ("kerberos", "airflow kerberos")
    )
    return float(airflow[1]) / float(ours[1]) if ours and airflow else None


RATIOS: dict[str, Callable[[], list[float | None]]] = {
    "s3-sync": lambda: [
        measured("listing, poll without a change, CPU: 1,000 files, of aws s3 sync"),
        measured("release, poll without a change, CPU: 1,000 files, of aws s3 sync"),
    ],
    "git-sync-wrapper": lambda: [measured("poll without a change, CPU: 1,000 files, of git-sync")],
    "sync-perm": lambda: [measured("an hour without a change, CPU: 1,000 DAGs, of the loop")],
    "kerberos": lambda: [of_a_refresh()],
}


@pytest.mark.parametrize("name", RATIOS)
def test_front_page_claims_what_was_measured(name: str) -> None:
    row = re.search(rf"^\| \[{name}\].*$", README, re.MULTILINE)
    assert row
    claimed = [float(one.replace(",", "")) for one in re.findall(r"1/([\d,]+)", row[0])]

    for claim, ratio in zip(claimed, RATIOS[name](), strict=True):
        assert ratio is None or 1 / NEAR < claim / ratio < NEAR, (
            f"{claim} on the page, {ratio} measured"
        )


def test_front_page_says_how_much_memory_was_measured() -> None:
    claim = re.search(r"Memory of each: (\d+) to (\d+) MiB", README)
    assert claim
    rows = re.findall(r"^\| memory: [^|]+\| [^|]+ \| ([\d.]+) MiB", BENCHMARKS, re.MULTILINE)
    measured = [float(mebibytes) for mebibytes in rows]

    assert min(measured) == pytest.approx(int(claim[1]), abs=NEAR_MIB)
    assert max(measured) == pytest.approx(int(claim[2]), abs=NEAR_MIB)


def test_front_page_says_how_much_memory_airflow_kerberos_holds() -> None:
    claim = re.search(r"`airflow kerberos` holds (\d+) to (\d+)", README)
    assert claim
    row = r"^\| airflow kerberos [^|]*\|.*\| ([\d.]+) MiB \|$"

    for mebibytes in re.findall(row, BENCHMARKS, re.MULTILINE):
        assert int(claim[1]) / NEAR < float(mebibytes) < int(claim[2]) * NEAR
