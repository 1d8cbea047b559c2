"""
The linters of this project find what they are for, and accept what is allowed.
"""

from __future__ import annotations

import pytest

from scripts import lint_figures


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("assert daemon.rss_mib() <= 45.5", True),
        ("assert seconds < 2", True),
        ("assert time.monotonic() - began <= LIMIT_SECONDS", True),
        ("assert 5 > len_of(threads) > 1", True),
        ("assert daemon.rss_mib() < 1.1 * before_mib", False),
        ("assert len(waits_seconds) > 2", False),
        ("assert 0 <= duration_seconds", False),
        ("assert 2 == wait_seconds", False),
        ("wait_until(lambda: done, 'it is done', 60)", False),
    ],
)
def test_finds_asserted_figures_of_a_machine(text: str, found: bool) -> None:
    assert found == bool([*lint_figures.finds(f"def test_it():\n    {text}\n")])
