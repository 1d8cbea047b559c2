"""
The benchmark of s3-sync: everyone does the whole work, and the page has a place for every figure.
"""

from collections import Counter
from pathlib import Path

import pytest

from bench import s3_sync
from bench.__main__ import main
from bench.budgets import at_most
from bench.measure import Cost, run
from bench.s3_peers import commands, open_peers
from bench.s3_store import open_store
from bench.s3_sync_page import BUDGETS, LAYOUTS, SITUATIONS, Place, Results, budgets, section

TOOLS = [*LAYOUTS, *commands("http://x")]


def results(ours: float = 0.0001, files: tuple[int, ...] = (100, 1_000, 10_000)) -> Results:
    """
    Return figures as of a run: a second for each peer.
    """
    costs = {
        (tool, situation): [Cost(ours if tool in LAYOUTS else 1.0, 1.0, 30.0)]
        for tool in TOOLS
        for situation in (*SITUATIONS, "unchanged", "edit")
    }
    requests = {key: Counter({"LIST": 1, "connections": 16}) for key in costs}
    return Results(
        disk="ext4",
        costs={(place, count): costs for place in Place for count in files},
        requests=dict.fromkeys(files, requests),
    )


@pytest.mark.parametrize("arguments", [[], ["s4-sync"], ["--help"]])
def test_who_names_no_sidecar_is_told_which_there_are(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert "s3-sync" in capsys.readouterr().err


def test_budgets_are_met_by_who_is_fast_and_missed_by_who_is_slow() -> None:
    fast, slow = budgets(results(ours=0.0001)), budgets(results(ours=2.0))
    ratios = [budget for budget in BUDGETS if budget.figure == "CPU"]

    assert {"met"} == {outcome.verdict for outcome in fast}
    # Beside them the first publish, and a change of a release in both layouts.
    assert len(ratios) + 3 == len([one for one in slow if one.verdict == "**missed**"])


def test_figures_of_a_single_size_make_a_page_too() -> None:
    found = section(results(files=(1_000,)), at_most("image", "size", 60, 45, "MB")).parts

    assert "| 1,000 |" in found["requests"]
    assert "10,000 files" not in "".join(found.values())


def test_peers_and_s3_sync_end_with_the_same_files(tmp_path: Path) -> None:
    with open_store(12, is_tls=True) as store:
        with open_peers(store, tmp_path, store.endpoint, None) as peers:
            for peer in peers.values():
                s3_sync.empty(peer.folder)
                peer.cold()
                s3_sync.check(store, peer.folder)
        store.change()
        store.publish()
        for name, layout in LAYOUTS.items():
            one_shot = s3_sync.one_shot(tmp_path / name, layout)
            run(["s3-sync"], store.environment() | one_shot)
            s3_sync.check(store, tmp_path / name, layout)

        with pytest.raises(AssertionError):
            s3_sync.check(store, tmp_path / "s5cmd")


def test_requests_are_counted_for_everyone(tmp_path: Path) -> None:
    with open_store(5, is_tls=False) as store:
        for name in TOOLS:
            s3_sync.empty(tmp_path / name)
        counts = s3_sync.count_requests(store, tmp_path, None)

    assert {(tool, situation) for tool in TOOLS for situation in SITUATIONS} == counts.keys()
    assert (1, 4) == (counts["s3-sync", "cold"]["LIST"], counts["s3-sync", "cold"]["GET"])
    assert (1, 0) == (counts["s3-sync", "poll"]["LIST"], counts["s3-sync", "poll"]["GET"])
    release = {situation: counts["s3-sync, release", situation] for situation in SITUATIONS}
    assert not any(count["LIST"] for count in release.values())
    # Pointer, manifest, bundle; and of a poll the pointer alone.
    assert (3, 1) == (release["cold"]["GET"], release["poll"]["GET"])
