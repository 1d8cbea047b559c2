"""
Reads the ``access_control`` of a serialized DAG, without Airflow.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

# Role → actions, or role → kind of resource → actions. The type of the collection of actions
# matters: Airflow keeps grants only for sets and mappings.
AccessControl = Mapping[str, Any]

_KEYS = ("_access_control", "access_control")  # Airflow 2, Airflow 3


class Unreadable(ValueError):
    """
    The serialized form is unknown.
    """


def read_access_control(data: str | None, compressed: bytes | None) -> AccessControl | None:
    """
    Return the access control in a row of ``serialized_dag``; None if the DAG has none.

    Most DAGs have none, and are not parsed.

    Raises:
        Unreadable: The serialized form is unknown.
    """
    try:
        text = zlib.decompress(compressed).decode() if compressed else data or "{}"
        if 'access_control"' not in text:
            return None
        dag = json.loads(text)["dag"]
        found = next((dag[key] for key in _KEYS if dag.get(key) is not None), None)
        decoded = None if found is None else _decode(found)
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        zlib.error,
    ) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from None
    if decoded is not None and not isinstance(decoded, dict):
        raise Unreadable(f"a {type(decoded).__name__}")
    return decoded


def _decode(value: Any) -> Any:
    """
    Undo Airflow's encoding: a mapping or set is ``{"__type": …, "__var": …}``.
    """
    match value:
        case {"__type": "dict", "__var": dict(inner)}:
            return {key: _decode(item) for key, item in inner.items()}
        case {"__type": "set" | "frozenset", "__var": list(inner)}:
            return set(inner)
        case {"__type": "tuple", "__var": list(inner)}:
            return tuple(inner)
        case {"__type": kind}:
            raise Unreadable(f"a {kind}")
        case dict():
            return {key: _decode(item) for key, item in value.items()}
    return value
