"""
The content of the roles file, with the place of each value in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from sync_perm.database.tables import Permission

By = Literal["id", "tag", "folder"]

# Replaces the key in mistakes that concern the whole file.
WHOLE = "(file)"


class Where(NamedTuple):
    """
    A place in the file: the line number, from 1, and the path of keys.
    """

    line: int
    key: str


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """
    One mistake in the file, with the allowed values.
    """

    where: Where
    problem: str

    def __str__(self) -> str:
        return f"{self.where.line}: {self.where.key}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Selection:
    """
    A selection of DAGs, and the permissions on them.

    Args:
        permissions: Pairs of a resource kind and an action, such as ``DAGs`` and ``can_read``.
    """

    by: By
    value: str
    permissions: frozenset[tuple[str, str]]
    where: Where


@dataclass(frozen=True, slots=True)
class Role:
    """
    One role in the file.

    Args:
        bases: The roles whose permissions and selections it inherits.
    """

    name: str
    where: Where
    bases: Mapping[str, Where]
    permissions: Mapping[Permission, Where]
    selections: tuple[Selection, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """
    The readable part of the file; with any mistake, the whole file is ignored.
    """

    roles: Mapping[str, Role] = field(default_factory=dict)
    mistakes: tuple[Mistake, ...] = ()

    @property
    def selections(self) -> Iterator[Selection]:
        return (selection for role in self.roles.values() for selection in role.selections)
