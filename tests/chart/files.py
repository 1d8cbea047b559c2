"""
Values: the files of charts-snippets, their valid combinations, and the output of `make values`.
"""

from __future__ import annotations

import copy
import functools
import pickle
import re
from collections.abc import Iterator
from typing import Any

import yaml

from scripts import snippets
from tests.chart.rendered import printed
from tests.chart.rules.sidecars import SIDECARS, Values

SNIPPETS = snippets.SNIPPETS
# Files with one sidecar each.
BLOCKS = tuple(f"{name}.{kind}.yaml" for name, one in SIDECARS.items() for kind in one.snippets)
WHOLE = "values.yaml"
OVERLAID = ((WHOLE,), (WHOLE, "values-airflow-2.yaml"), (WHOLE, "values-git-sync.yaml"))
# The sections of `sidecars` that a deployment may leave unused, but only as a whole.
SECTIONS = {"s3Sync", "kerberos", "syncPerm"}
# The other values files, each with the stacks of files that Helm must receive before it.
BEFORE: dict[str, tuple[tuple[str, ...], ...]] = {
    WHOLE: ((),),
    "values-airflow-2.yaml": ((WHOLE,),),
    "values-dev.yaml": OVERLAID,
    "values-git-sync.yaml": ((WHOLE,), (WHOLE, "values-airflow-2.yaml")),
    "values-prd.yaml": OVERLAID,
    "examples/fargate.yaml": ((WHOLE,),),
    "examples/git-sync-deployment.yaml": ((),),
    "examples/shared-ticket.yaml": ((),),
    "quickstart/values.yaml": ((),),
}
FILES = (*BLOCKS, *BEFORE)
VALUES = (*FILES, *printed.DOZEN)
# Files with one or more Kubernetes objects.
OBJECTS = (
    "network/network-policy.yaml",
    "network/security-group-policy.yaml",
    "objects/git-sync-deployment.yaml",
    "objects/pod-template-project.yaml",
    "objects/pod-template.yaml",
    "objects/shared-ticket.yaml",
    "quickstart/s3.yaml",
    "secrets/external-secrets.yaml",
)
PATCHES = ("network/aws-node.yaml",)
# Folders that other tests check.
ELSEWHERE = ("ci", "kustomize", "monitoring")

_REFERENCE = re.compile(r"\{\{ \.Values\.([\w.]+) \}\}")


@functools.cache
def text(name: str) -> str:
    """
    Return the content of a file, or the output of a command.
    """
    if name in printed.ALL:
        return snippets.values(printed.ALL[name])
    return (SNIPPETS / name).read_text()


def load(name: str) -> Values:
    """
    Return the values of a file or a command, without the files that precede it.
    """
    values: Values = pickle.loads(_parsed(name))
    return values


@functools.cache
def _parsed(name: str) -> bytes:
    # Callers may change their copies; unpickling one takes a twentieth of the time of parsing.
    return pickle.dumps(yaml.load(text(name), yaml.CSafeLoader))


def task_pods() -> list[Values]:
    """
    Return the values of task pods, from each values file that has some.
    """
    found = [load(name).get("workers", {}).get("kubernetes") for name in VALUES]
    assert any(found)
    return [one for one in found if one]


def load_objects(name: str) -> list[Values]:
    return [one for one in yaml.load_all((SNIPPETS / name).read_text(), yaml.CSafeLoader) if one]


def ours(node: Any, seen: set[int] | None = None) -> Iterator[Values]:
    """
    Yield each sidecar container of nested values once, even if several aliases refer to it.
    """
    seen = set() if seen is None else seen
    if not isinstance(node, (dict, list)) or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, dict) and node.get("name") in SIDECARS and "image" in node:
        yield node
    for child in node.values() if isinstance(node, dict) else node:
        yield from ours(child, seen)


def named(holder: list[Values], name: str) -> Values:
    """
    Return the item with this name.
    """
    return next(one for one in holder if one["name"] == name)


def merged(defaults: Values, values: Values) -> Values:
    """
    Merge values as Helm does: maps key by key, lists and all other values as a whole.
    """
    result = dict(defaults)
    for key, value in values.items():
        before = result.get(key)
        both_maps = isinstance(before, dict) and isinstance(value, dict)
        result[key] = merged(before, value) if both_maps else value  # type: ignore[arg-type]
    return result


def stacks(name: str, values: Values) -> Iterator[Values]:
    """
    Yield the values of a file merged with each stack of files that may precede it.
    """
    for before in BEFORE.get(name, ((),)):
        result: Values = {}
        for other in before:
            result = merged(result, load(other))
        yield merged(result, values)


def referred(values: Values) -> tuple[Values, list[str]]:
    """
    Replace each `{{ .Values.… }}` with its value, if the values contain it.

    Returns:
        The values, and complaints: references to missing keys of `sidecars`, and keys of
        `sidecars` without a reference.
    """
    values = copy.deepcopy(values)
    used: set[str] = set()
    found: list[str] = []

    def put_in(match: re.Match[str]) -> str:
        path = match[1]
        used.add(path)
        value: Any = values
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is None and path.startswith("sidecars."):
            found.append(f"{match[0]} refers to nothing")
        return match[0] if value is None else str(value)

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: walk(value) for key, value in node.items()}
        if isinstance(node, list):
            return [walk(value) for value in node]
        return _REFERENCE.sub(put_in, node) if isinstance(node, str) else node

    result: Values = walk(values)
    mine = {f"sidecars.{path}" for path in _leaves(values.get("sidecars", {}))}
    sections = {path.split(".")[1] for path in used if path.startswith("sidecars.")}
    found += [
        f"{path}: nothing refers to it"
        for path in sorted(mine - used)
        if path.split(".")[1] not in SECTIONS - sections
    ]
    return result, found


def _leaves(values: Values, path: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}"
