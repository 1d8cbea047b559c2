"""
Every combination of words for `make values`, and a few that cover every pair of words.
"""

import itertools
import os
import random
from collections.abc import Mapping

from sidecar_values.deployment import CHOICES, complaints
from tests import Texts

Choice = Mapping[str, str]

# Of the few: other combinations with another seed.
SEED = os.environ.get("SEED", "1")


def command(choice: Choice) -> str:
    """
    Return the command that prints a combination.
    """
    return " ".join(
        ["make", "values", *[f"{name}={word}" for name, word in choice.items() if word]]
    )


def choice(command: str) -> Choice:
    """
    Return the combination that a command prints.
    """
    return {
        **dict.fromkeys(CHOICES, ""),
        **dict(word.split("=") for word in command.split()[2:]),
    }


def kinds(choice: Choice) -> dict[str, Texts]:
    """
    Return the sidecars that each pod must have, with their kinds; the chart's own
    git-sync is none of them.
    """
    source = choice["SOURCE"]
    executor = choice["EXECUTOR"] or "CeleryExecutor"
    bring = {"git": "git-sync-wrapper", "listing": "s3-sync", "release": "s3-sync"}
    dags = {bring[source]: "native"} if source in bring else {}
    tickets = {"kerberos": "native"} if choice["KERBEROS"] else {}
    found = {
        "dag-processor": dags,
        "triggerer": (dags if choice["AIRFLOW"] == "2" else {}) | tickets,
    }
    if "CeleryExecutor" in executor:
        found["worker"] = dags | tickets
    if "KubernetesExecutor" in executor:
        found["task pod"] = (
            dict.fromkeys(dags, "native" if choice["VERSIONS"] else "init") | tickets
        )
        if choice["KERBEROS"] == "init":
            found["task pod"]["kerberos"] = "init"
    if executor == "LocalExecutor":
        found["scheduler"] = dags | tickets
    elif is_pinned(choice):
        found["scheduler"] = {"s3-sync": "extra"}
    if choice["SYNC_PERM"]:
        found["webserver" if choice["AIRFLOW"] == "2" else "api-server"] = {
            "sync-perm": "extra"
        }
    return {pod: some for pod, some in found.items() if some}


def is_pinned(choice: Choice) -> bool:
    """
    Whether task pods get the release of the scheduler's volume.
    """
    return (
        choice["SOURCE"] == "release"
        and choice["EXECUTOR"] not in ("LocalExecutor", "CeleryExecutor")
        and not choice["VERSIONS"]
    )


def pairs(choice: Choice) -> set[tuple[tuple[str, str], ...]]:
    """
    Return the pairs of words in a combination.
    """
    return set(itertools.combinations(choice.items(), 2))


def _few() -> dict[str, Choice]:
    """
    Add the combination with the most uncovered pairs until every pair is covered.
    """
    found = {}
    covers = {name: pairs(choice) for name, choice in ALL.items()}
    left = set().union(*covers.values())
    names = random.Random(SEED).sample([*ALL], len(ALL))
    while left:
        best = max(names, key=lambda name: len(covers[name] & left))
        found[best] = ALL[best]
        left -= covers[best]
    return found


_PRODUCT = (
    dict(zip(CHOICES, words, strict=True))
    for words in itertools.product(*CHOICES.values())
)
ALL: Mapping[str, Choice] = {
    command(choice): choice for choice in _PRODUCT if not complaints(choice)
}
FEW = _few()
