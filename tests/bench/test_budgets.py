"""
Budgets: what is met, what is missed, and the summary of all tables on a page.
"""

from pathlib import Path

import pytest

from bench.budgets import (
    Outcome,
    at_most,
    at_most_part,
    at_most_seconds,
    budgets_text,
    none_of,
    summary,
    write_budgets,
)


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (at_most_seconds("p", "w", 0.6, 0.6), "met"),
        (at_most_seconds("p", "w", 0.6, 0.601), "**missed**"),
        (at_most_part("p", "w", 1 / 80, 1 / 81), "met"),
        (at_most_part("p", "w", 1 / 80, 1 / 79), "**missed**"),
        (at_most("p", "w", 48, 48.2, "MiB"), "**missed**"),
        (at_most("p", "w", 48, None, "MiB"), "**not measured**"),
        (none_of("p", "w", failed=0, of=100, least=100), "met"),
        (none_of("p", "w", failed=1, of=1_000, least=100), "**missed**"),
        (none_of("p", "w", failed=1, of=99, least=100), "**missed**"),
        (none_of("p", "w", failed=0, of=99, least=100), "**not measured**"),
    ],
)
def test_verdict_follows_from_the_figures(outcome: Outcome, verdict: str) -> None:
    assert verdict == outcome.verdict


def test_table_names_what_is_missed_with_the_reason() -> None:
    text = budgets_text(
        [
            at_most_part("poll, CPU", "1,000 files, of it", 1 / 80, 1 / 107),
            at_most("memory", "idle", 48, 48.2, "MiB", "It is large."),
        ]
    )

    assert "| poll, CPU: 1,000 files, of it | ≤ 1/80 | 1/107 | 75% | met |\n" in text
    assert "| memory: idle | ≤ 48 MiB | 48.2 MiB | 100.4% | **missed** |\n" in text
    assert "- missed: memory, idle: 48.2 MiB, promised ≤ 48 MiB. It is large.\n" in text
    assert 1 == text.count("- missed")


def test_table_without_a_miss_says_so() -> None:
    assert "None is missed." in budgets_text([at_most_seconds("p", "w", 1, 0.5)])


def test_summary_has_one_line_for_each_promise_with_its_worst_figure(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    places = ("summary", "one budgets", "two budgets")
    page.write_text("".join(f"<!-- bench:{place} -->\n<!-- end -->\n" for place in places))

    write_budgets(
        "one",
        [
            at_most_seconds("poll", "few", 1, 0.2),
            at_most_seconds("poll", "many", 1, 0.9),
            at_most_seconds("start", "cold", 1, 2.0, "It is slow."),
        ],
        page,
    )
    write_budgets(
        "two",
        [
            none_of("reads", "one writer", 0, 100, 100),
            at_most("memory", "idle", 10, None, "MiB", "No tool."),
        ],
        page,
    )

    text = summary(page.read_text())
    assert text.rstrip() in page.read_text()
    assert "5 figures have a budget: 3 met, 1 missed, 1 not measured." in text
    assert "| **one**, poll | many: 900 ms, promised ≤ 1.00 s (90% of it) | 2 | met |" in text
    assert (
        "| **one**, start | cold: 2.00 s, promised ≤ 1.00 s (200% of it) | 1 | **missed** |" in text
    )
    assert "| **two**, reads | one writer: 0 of 100, promised 0 of 100 | 1 | met |" in text
    assert "| **two**, memory | idle: no figure, promised ≤ 10 MiB | 1 | **not measured** |" in text
    assert "- **one**, missed: start, cold: 2.00 s, promised ≤ 1.00 s. It is slow." in text
    assert "- **two**, not measured: memory, idle: no figure, promised ≤ 10 MiB. No tool." in text
