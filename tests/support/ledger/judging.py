"""
At the end of a run: how many of the documented names its tests have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import Texts
from tests.support.ledger.documented import Name, documented
from tests.support.ledger.seen import LEDGER

EXCEPTIONS = Path(__file__).with_name("exceptions.txt")
MOST_EXCEPTIONS = 15


def exceptions() -> Texts:
    """
    Return the names that cannot be provoked here, each with the reason.

    Raises:
        AssertionError: There are too many, one has no reason, or is not documented.
    """
    known = {str(name) for name in documented()}
    lines = [line for line in EXCEPTIONS.read_text().splitlines() if line]
    found = {}
    for line in lines:
        if not line.startswith("#"):
            name, _, why = line.partition(" | ")
            assert why, f"{line}: has no reason"
            assert name in known, f"{name} is not documented"
            found[name] = why
    assert len(found) <= MOST_EXCEPTIONS, f"{len(found)} exceptions"
    return found


def unexcused() -> list[Name]:
    """
    Return the documented names that no test has seen, without the exceptions.
    """
    excused = exceptions()
    return [name for name in LEDGER.missing() if str(name) not in excused]


def is_judged(config: pytest.Config) -> bool:
    """
    Whether a name that nobody saw fails the run: with `--full`, and all tests.
    """
    is_selection = config.getoption("keyword") or config.getoption("markexpr")
    names_files = any(Path(word).is_file() or "::" in word for word in config.args)
    return bool(config.getoption("--full")) and not is_selection and not names_files


def report(is_judged: bool) -> Iterator[str]:
    """
    Return the lines that say what the run has seen.
    """
    seen, all_names = LEDGER.share()
    if not seen:
        return
    yield f"ledger: {seen} of {all_names} documented names were seen in a process"
    if is_judged:
        for name in unexcused():
            yield f"ledger: never seen: {name}"
