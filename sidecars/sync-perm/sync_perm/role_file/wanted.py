"""
Compares the roles file with the tables; pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from sync_perm.database.tables import Grant, Permission, Place, Tables
from sync_perm.difference import (
    DEFAULT_ROLES,
    WEBSITE,
    Definition,
    FileKind,
    Item,
    Resource,
)
from sync_perm.role_file.document import Document, Mistake, Selection
from sync_perm.role_file.folder import matcher
from sync_perm.role_file.guess import guess


@dataclass(frozen=True, slots=True)
class Surplus:
    """
    The rows that a prune would remove; the sidecar never prunes.

    Args:
        roles: The roles that neither Airflow nor the file defines.
        grants: The grants of the file's roles that the file does not define.
    """

    roles: tuple[str, ...]
    grants: tuple[Grant, ...]


class Wanted:
    """
    A valid roles file, compared with the tables.

    Attributes:
        overruled: The DAGs that the file selects, but whose ``access_control`` decides.
        idle: The selections that match no DAG.
    """

    def __init__(
        self,
        document: Document,
        tables: Tables,
        kinds: Mapping[str, Resource],
        definition: Definition,
    ) -> None:
        self._document = document
        self._tables = tables
        self._definition = definition
        dags = [dag_id for dag_id in tables.dags if dag_id not in kinds]
        self._resources = {
            name: {dag_id: f"{kind.prefix}{dag_id}" for dag_id in dags}
            for name, kind in kinds.items()
        }
        self._ruled = {dag_id for dag_id in dags if tables.dags[dag_id] is not None}
        # Lists, because fifty sets of a thousand DAGs took 3 MiB (2026-11).
        chosen = {
            one: list(filter(_chooser(one, tables.places), dags)) for one in document.selections
        }
        self._selected = {
            one: [dag_id for dag_id in found if dag_id not in self._ruled]
            for one, found in chosen.items()
        }
        self.overruled = sorted(self._ruled.intersection(chain(*chosen.values())))
        self.idle = [one for one, found in chosen.items() if not found]

    def items(self) -> Iterator[Item]:
        """
        Yield the missing rows, some possibly twice.
        """
        for name in self._document.roles:
            role = self._tables.spelled(name)
            held = self._tables.grants.get(role)
            if held is None:
                yield Item("file_role", "", (role,))
                if role in self._tables.unfit:
                    continue  # it cannot be created, so it gets no grants
                yield Item("file_grant", "", (role, *WEBSITE))  # Airflow grants it to every role
            for dag_id, permission in self._permissions(name):
                # An existing role gets the website permission from Airflow's own rules.
                if held is None or (permission != WEBSITE and permission not in held):
                    kind: FileKind = "file_dag_grant" if dag_id else "file_grant"
                    yield Item(kind, dag_id, (role, *permission))

    def surplus(self) -> Surplus:
        """
        Return the rows that the file does not define.
        """
        names = {self._tables.spelled(name): name for name in self._document.roles}
        # Airflow's own rules remove superfluous grants on these resources.
        ruled = {by_dag[dag_id] for by_dag in self._resources.values() for dag_id in self._ruled}
        defined = map(self._tables.spelled, self._definition.roles)
        roles = self._tables.roles - names.keys() - set(defined)
        return Surplus(
            tuple(sorted(roles.difference(DEFAULT_ROLES))),
            tuple(
                sorted(
                    (role, *permission)
                    for role in self._tables.roles & names.keys()
                    for permission in self._tables.grants[role]
                    - {permission for _, permission in self._permissions(names[role])}
                    if permission != WEBSITE and permission[1] not in ruled
                )
            ),
        )

    def _permissions(self, name: str) -> Iterator[tuple[str, Permission]]:
        """
        Yield the permissions that a role must have, each with the id of its DAG, or empty.
        """
        for one in _lineage(name, self._document):
            role = self._document.roles.get(one)
            if role is None:
                yield from (("", permission) for permission in self._definition.grants.get(one, ()))
                continue
            yield from (("", permission) for permission in role.permissions)
            for selection in role.selections:
                for kind, action in selection.permissions:
                    resources = self._resources[kind]
                    for dag_id in self._selected[selection]:
                        yield dag_id, (action, resources[dag_id])


def find_mistakes(
    document: Document, tables: Tables, definition: Definition | None
) -> tuple[Mistake, ...]:
    """
    Return the mistakes of the file, and those that only Airflow's definition and database show.

    Args:
        definition: None if it is not known yet: then permissions are not checked.
    """
    found = list(document.mistakes)
    known = tables.permissions | definition.permissions if definition else frozenset()
    views = definition.permissions if definition else ()
    words = [f"{action} on {resource}" for action, resource in views]
    guesses: dict[str, str] = {}  # each takes milliseconds, and roles repeat their mistakes
    names = {tables.spelled(role): role for role in DEFAULT_ROLES}  # by the database's spelling
    for role in document.roles.values():
        other = names.setdefault(tables.spelled(role.name), role.name)
        if other != role.name:
            found.append(Mistake(role.where, f"the database treats this name as {other}"))
        for permission, where in role.permissions.items():
            if definition and permission not in known:
                text = " on ".join(permission)
                if text not in guesses:
                    guesses[text] = guess(text, words)
                problem = f"this Airflow has no permission {text!r}{guesses[text]}"
                found.append(Mistake(where, problem))
    return tuple(sorted(found))


def _lineage(name: str, document: Document) -> Iterable[str]:
    """
    Return a role and all roles that it inherits from, each once.
    """
    found: dict[str, None] = {}
    todo = [name]
    while todo:
        one = todo.pop()
        if one not in found:
            found[one] = None
            todo += document.roles[one].bases if one in document.roles else ()
    return found


def _chooser(selection: Selection, places: Mapping[str, Place]) -> Callable[[str], bool]:
    """
    Return a function that reports whether a selection includes a DAG, by its id.
    """
    value = selection.value
    match selection.by:
        case "id":
            return lambda dag_id: dag_id == value
        case "tag":
            return lambda dag_id: dag_id in places and value in places[dag_id].tags
        case "folder":
            fits = matcher(value)
            return lambda dag_id: dag_id in places and fits(places[dag_id].path)
