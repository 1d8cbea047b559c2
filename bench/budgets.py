"""
Figures beside their budgets. A budget is a ratio to another tool wherever there is one.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """
    A figure with a budget.

    Args:
        promise: The subject of the budget.
        what: The name of the figure within the promise.
        budget, measured: Formatted for the table.
        used: The measured value as a part of the budget, more than 1 = missed; None =
            not measured.
        because: The reason, if the budget is missed or the figure is not measured.
    """

    promise: str
    what: str
    budget: str
    measured: str
    used: float | None
    because: str = ""

    @property
    def verdict(self) -> str:
        if self.used is None:
            return "**not measured**"
        return "met" if self.used <= 1 else "**missed**"


def at_most_part(promise: str, what: str, most: float, measured: float) -> Outcome:
    """
    Return the outcome of a ratio to a peer.
    """
    return Outcome(promise, what, f"≤ {_part(most)}", _part(measured), measured / most)


def at_most_seconds(promise: str, what: str, most: float, measured: float) -> Outcome:
    """
    Return the outcome of a duration.
    """
    return Outcome(
        promise, what, f"≤ {seconds(most)}", seconds(measured), measured / most
    )


def at_most(
    promise: str,
    what: str,
    most: float,
    measured: float | None,
    unit: str,
    because: str = "",
) -> Outcome:
    """
    Return the outcome of a size.

    Args:
        unit: The unit of both numbers.
        measured: None = not measured.
    """
    if measured is None:
        return Outcome(promise, what, f"≤ {most:g} {unit}", "", None, because)
    shown = f"{measured:.1f} {unit}"
    return Outcome(promise, what, f"≤ {most:g} {unit}", shown, measured / most, because)


def none_of(promise: str, what: str, failed: int, of: int, least: int) -> Outcome:
    """
    Return the outcome of a failure that must never occur.

    Args:
        failed: The number of failures.
        of: The number of tries.
        least: The required number of tries; with fewer, the outcome is "not measured".
    """
    used = math.inf if failed else 0.0 if of >= least else None
    too_few = "" if of >= least else f"Only {of:,} of {least:,} were tried."
    shown = f"{failed:,} of {of:,}"
    return Outcome(promise, what, f"0 of {least:,}", shown, used, too_few)


def seconds(value: float) -> str:
    """
    Return a duration for a table, in s or ms, with three digits.
    """
    return f"{_digits(value)} s" if value >= 0.9995 else f"{_digits(value * 1000)} ms"


def times(ratio: float) -> str:
    """
    Return a ratio for a table, with three digits.
    """
    return f"{_digits(ratio)}x"


def percent(used: float | None) -> str:
    """
    Return a part of a budget; with a decimal close to 100 %.
    """
    if not used or math.isinf(used):
        return ""
    return f"{used:.1%}" if 0.995 < used < 1.005 else f"{used:.0%}"


def _part(ratio: float) -> str:
    if ratio < 1 / 100:
        return f"1/{1 / ratio:,.0f}"
    return f"1/{1 / ratio:.3g}" if ratio < 1 / 2 else f"{ratio:.2g}"


def _digits(value: float) -> str:
    return f"{value:,.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"
