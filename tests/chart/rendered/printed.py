"""
Every combination of words for `make values`, and a dozen that cover every pair of words.
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
    Return the sidecars that each pod must have, with their kinds.
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
    Add the combination with the most uncovered pairs until every pair is covered.
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
