"""
The page has one place for every part of every benchmark, a plot for every picture, and figures of
a run, whole or short, make all of them.
"""

import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from bench import git_sync_wrapper_page, kerberos, s3_sync_page, sync_perm_page
from bench.__main__ import names
from bench.budgets import at_most
from bench.git_siege import SIEGES, Siege
from bench.kerberos_tools import OURS as KERBEROS
from bench.kerberos_tools import TWO
from bench.measure import Cost
from bench.page import Section, deliver
from bench.report import PAGE, REFERENCE

COST = Cost(0.1, 0.2, 30.0)
IMAGE = at_most("image", "over its base", 60, 45, "MB")


def s3_sync_section() -> Section:
    tools = [*s3_sync_page.LAYOUTS, "aws s3 sync", "s5cmd", "rclone", "S3DagBundle"]
    situations = (*s3_sync_page.SITUATIONS, "unchanged", "edit")
    costs = {(tool, situation): [COST] for tool in tools for situation in situations}
    costs["S3DagBundle, at the start of a task", "poll"] = [COST]
    requests = {
        (tool, situation): Counter({"LIST": 1})
        for tool in tools
        for situation in s3_sync_page.SITUATIONS
    }
    results = s3_sync_page.Results(
        disk="ext4",
        costs={
            (place, files): costs for place in s3_sync_page.Place for files in (100, 1_000, 10_000)
        },
        requests={1_000: requests},
    )
    return s3_sync_page.section(results, IMAGE)


def kerberos_section() -> Section:
    rows = defaultdict(kerberos.Row)
    for name in (KERBEROS, TWO, "kinit in a loop"):
        rows[name] = kerberos.Row([] if name == TWO else [COST], 100_000, 0)
    return kerberos.section(rows, 0.2, kerberos.Hung(0.01, 0.1), IMAGE, {"k5start": "not here"})


def sync_perm_section() -> Section:
    found = {name: [1.0] for name in sync_perm_page.Results(polls=120).__dict__ if name != "polls"}
    return sync_perm_page.section({1_000: sync_perm_page.Results(polls=120, **found)}, {"x": "1"})


def git_sync_wrapper_section(*, is_real: bool = True) -> Section:
    results = git_sync_wrapper_page.Results(is_real=is_real)
    for files in (1_000, 10_000):
        for name in ("git-sync", "git ls-remote in a loop", "git-sync-wrapper"):
            results.polls[files, name].append(git_sync_wrapper_page.Poll(COST, None))
        for name in ("git-sync", "git-sync-wrapper"):
            results.cold[files, name].append(COST)
            results.change[files, name].append(COST)
    results.sieges = {name: Siege("commits", 10_000, 0) for name in SIEGES}
    return git_sync_wrapper_page.section(results, {"x": "1"})


SECTIONS = {
    "git-sync-wrapper": git_sync_wrapper_section,
    "kerberos": kerberos_section,
    "s3-sync": s3_sync_section,
    "sync-perm": sync_perm_section,
}


def test_every_sidecar_has_a_benchmark() -> None:
    assert names() == sorted(SECTIONS)


@pytest.mark.parametrize("sidecar", SECTIONS)
def test_page_has_one_place_for_every_part(sidecar: str) -> None:
    places = re.findall(rf"^<!-- bench:{sidecar} (.+) -->$", PAGE.read_text(), re.MULTILINE)

    assert sorted([*SECTIONS[sidecar]().parts, "budgets"]) == sorted(places)


def test_page_shows_every_plot_and_each_is_there() -> None:
    shown = re.findall(r"\]\(benchmarks-(.+)\.svg\)", PAGE.read_text())
    drawn = [f"{name}-{plot.name}" for name, make in SECTIONS.items() for plot in make().plots]

    assert sorted(drawn) == sorted(shown)
    assert [] == [name for name in shown if not (REFERENCE / f"benchmarks-{name}.svg").is_file()]


def test_each_budget_that_is_missed_on_the_page_says_why() -> None:
    page, missed = PAGE.read_text(), r"(?:missed|not measured): .+$"
    lines = re.findall(rf"^- {missed}", page, re.MULTILINE)
    in_summary = re.findall(rf"^- \*\*.+?\*\*, ({missed})", page, re.MULTILINE)
    why = re.compile(r", promised (?:≤ )?[\d.,/]+[^.]*\. \S.+\.$")

    assert sorted(line.removeprefix("- ") for line in lines) == sorted(in_summary)
    assert [] == [line for line in lines if not why.search(line)]


@pytest.mark.parametrize("sidecar", SECTIONS)
def test_run_rewrites_its_own_parts_the_summary_and_its_plots(sidecar: str, tmp_path: Path) -> None:
    shutil.copy(PAGE, tmp_path)
    found = SECTIONS[sidecar]()

    deliver(found, is_written=True, folder=tmp_path)

    text = (tmp_path / PAGE.name).read_text()
    assert text != PAGE.read_text()
    assert found.parts["machine"].splitlines()[0] in text
    assert len(found.plots) == len(list(tmp_path.glob("*.svg"))) > 0


def test_peer_that_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    deliver(kerberos_section(), is_written=False)

    printed = capsys.readouterr()
    assert "Not here, and so not measured: k5start (not here)." in printed.out
    assert "kerberos: without k5start: not here" in printed.err


def test_stand_in_for_git_sync_proves_no_ratio() -> None:
    section = git_sync_wrapper_section(is_real=False)

    ratios = [one for one in section.outcomes if one.promise.startswith("poll")]
    assert [None, None] == [one.used for one in ratios]
    assert "git-sync" in section.missing
