"""
How a test breaks a snippet, to see that a check notices.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.chart import checks
from tests.chart.sidecars import Values

Mutation = Callable[[Values], object]


def dag_processor(values: Values) -> Values:
    component: Values = values["dagProcessor"]
    return component


def container(values: Values) -> Values:
    container: Values = checks.containers(dag_processor(values))[0]
    return container


def triggerer(values: Values) -> Values:
    component: Values = values["triggerer"]
    return component


def triggerer_container(values: Values) -> Values:
    container: Values = checks.containers(triggerer(values))[0]
    return container


def named(holder: list[Values], name: str) -> Values:
    return next(one for one in holder if one["name"] == name)


def rename(mapping: Values, old: str, new: str) -> None:
    mapping[new] = mapping.pop(old)
