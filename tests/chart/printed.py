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


def kinds(choice: Choice) -> dict[str, dict[str, str]]:
    """
    Return which pods must have which of our containers, and as what.
    """
    dags = "git-sync-wrapper" if choice["SOURCE"] == "git" else "s3-sync"
    tickets = {"kerberos": "native"} if choice["KERBEROS"] else {}
    found = {"dag-processor": {dags: "native"}, "triggerer": {dags: "native"} | tickets}
    if choice["EXECUTOR"] == "KubernetesExecutor":
        found["task pod"] = {dags: "init"} | tickets
        if choice["SOURCE"] == "release":
            found["scheduler"] = {dags: "extra"}
    else:
        tasks = "scheduler" if choice["EXECUTOR"] == "LocalExecutor" else "worker"
        found[tasks] = {dags: "native"} | tickets
    if choice["SYNC_PERM"]:
        web = "webserver" if choice["AIRFLOW"] == "2" else "api-server"
        found[web] = {"sync-perm": "extra"}
    return found


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
