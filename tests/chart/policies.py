"""
Evaluates IAM policies by the rules of AWS, limited to the elements that our policies use.

A request is allowed if a statement allows it and no statement denies it.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.chart.files import SNIPPETS
from tests.chart.sidecars import Values

NAMES = sorted(path.name for path in (SNIPPETS / "iam").glob("*.json"))


@dataclass(frozen=True)
class Ask:
    """
    A request: the action, its resource or principal, and the condition keys that AWS sets.
    """

    action: str
    resource: str = "*"
    context: Mapping[str, str] = field(default_factory=dict)
    principal: tuple[str, str] | None = None


def load(name: str) -> Values:
    policy: Values = json.loads((SNIPPETS / "iam" / name).read_text())
    return policy


def allows(policy: Values, ask: Ask) -> bool:
    """
    Return whether a policy allows a request.
    """
    effects = {one["Effect"] for one in policy["Statement"] if _applies(one, ask)}
    return effects == {"Allow"}


def _applies(statement: Values, ask: Ask) -> bool:
    if ask.principal is not None:
        kind, name = ask.principal
        if name not in _texts(statement["Principal"].get(kind, [])):
            return False
    elif not any(_like(one, ask.resource) for one in _texts(statement["Resource"])):
        return False
    # AWS ignores case in actions, but not in resources.
    is_meant = any(_like(one.lower(), ask.action.lower()) for one in _texts(statement["Action"]))
    return is_meant and all(
        _holds(operator, _texts(wanted), ask.context.get(key))
        for operator, keys in statement.get("Condition", {}).items()
        for key, wanted in keys.items()
    )


def _holds(operator: str, wanted: Sequence[str], value: str | None) -> bool:
    if value is None:
        return False
    return any(one == value if operator == "StringEquals" else _like(one, value) for one in wanted)


def _like(pattern: str, text: str) -> bool:
    parts = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(parts, text, re.DOTALL) is not None


def _texts(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value
