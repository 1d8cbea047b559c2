"""
Values: the files of charts-snippets, and the output of `make values`.
"""

import copy
import functools
import re
from typing import Any

import yaml

from sidecar_values import deployment
from sidecar_values.files import SNIPPETS
from tests import Facts
from tests.chart import printed

Values = Facts

__all__ = ["OBJECTS", "SNIPPETS", "Values", "load", "load_objects", "text"]

# Files with Kubernetes objects.
OBJECTS = tuple(
    str(path.relative_to(SNIPPETS))
    for folder in ("network", "objects", "quickstart", "secrets")
    for path in sorted((SNIPPETS / folder).glob("*.yaml"))
    if path.name not in ("aws-node.yaml", "values.yaml")
)
_REFERENCE = re.compile(r"\{\{ \.Values\.(sidecars\.[\w.]+) \}\}")


@functools.cache
def text(name: str) -> str:
    """
    Return the content of a file, or the output of a command.
    """
    if name.startswith("make values"):
        return deployment.values(printed.choice(name))
    return (SNIPPETS / name).read_text()


def load(name: str) -> Values:
    """
    Return the values of a file or a command, with each reference to `sidecars`
    replaced.
    """
    return copy.deepcopy(_parsed(name))


@functools.cache
def _parsed(name: str) -> Values:
    return filled(yaml.load(text(name), yaml.CSafeLoader))


def filled(values: Values) -> Values:
    """
    Return values with each reference to `sidecars` replaced.
    """

    def value(match: re.Match[str]) -> str:
        return str(
            functools.reduce(lambda found, key: found[key], match[1].split("."), values)
        )

    def inner(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: inner(value) for key, value in node.items()}
        if isinstance(node, list):
            return [inner(value) for value in node]
        return _REFERENCE.sub(value, node) if isinstance(node, str) else node

    found: Values = inner(values)
    return found


def load_objects(name: str) -> list[Values]:
    return [
        one
        for one in yaml.load_all((SNIPPETS / name).read_text(), yaml.CSafeLoader)
        if one
    ]
