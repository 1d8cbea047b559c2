"""
What `make values` prints: every combination of its words, and a dozen that have all pairs of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from scripts.snippets import combinations

Choice = Mapping[str, str]


def command(choice: Choice) -> str:
    """
    Return the command that prints a combination.
    """
    words = [f"{name}={word}" for name, word in choice.items() if word]
    return " ".join(["make", "values", *words])


def pairs(choice: Choice) -> set[tuple[tuple[str, str], ...]]:
    """
    Return the pairs of words in a combination.
    """
    return set(itertools.combinations(choice.items(), 2))


def _dozen() -> dict[str, Choice]:
    """
    Take the combination with most pairs that are not there yet, until all are.
    """
    found = {}
    left = set().union(*map(pairs, ALL.values()))
    while left:
        best = max(ALL, key=lambda name: len(pairs(ALL[name]) & left))
        found[best] = ALL[best]
        left -= pairs(ALL[best])
    return found


ALL: Mapping[str, Choice] = {command(choice): choice for choice in combinations()}
DOZEN = _dozen()
