"""
What the file says: roles, and where in the file each word is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from sync_perm.database.tables import Permission

By = Literal["id", "tag", "folder"]

# Instead of keys, where the file as a whole is meant.
WHOLE = "(file)"


class Where(NamedTuple):
    """
    A place in the file: the line, from 1, and the keys that lead there.
    """

    line: int
    key: str


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """
    One thing that is wrong, and what is allowed there.
    """

    where: Where
    problem: str

    def __str__(self) -> str:
        return f"{self.where.line}: {self.where.key}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Selection:
    """
    Some DAGs, and what may be done with them.

    Args:
        permissions: Kind of resource and action, such as ``DAGs`` and ``can_read``.
    """

    by: By
    value: str
    permissions: frozenset[tuple[str, str]]
    where: Where


@dataclass(frozen=True, slots=True)
class Role:
    """
    What the file says of one role.

    Args:
        bases: Roles whose permissions and selections it has, too.
    """

    name: str
    where: Where
    bases: Mapping[str, Where]
    permissions: Mapping[Permission, Where]
    selections: tuple[Selection, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """
    The file as far as it can be read; with a mistake none of it counts.
    """

    roles: Mapping[str, Role] = field(default_factory=dict)
    mistakes: tuple[Mistake, ...] = ()

    @property
    def selections(self) -> Iterator[Selection]:
        return (selection for role in self.roles.values() for selection in role.selections)
