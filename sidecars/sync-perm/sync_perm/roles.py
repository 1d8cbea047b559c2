"""
Roles as code: the current roles file, and the rows that it wants and the tables lack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.logs import get_logger
from sync_perm.compare import (
    ADMIN,
    DEFAULT_ROLES,
    LONGEST,
    WEBSITE,
    Item,
    Kind,
    Kinds,
    Permission,
    Place,
    Tables,
)
from sync_perm.reasons import failure
from sync_perm.roles_file import WHOLE, Document, Mistake, Selection, lineage, matcher, parse

# The size limit of a ConfigMap.
MAX_BYTES = 1 << 20
NAMED_MISTAKES = 5

Defined = Mapping[str, Set[Permission]]
"""Role → the permissions that this Airflow defines for it."""

log = get_logger("roles_file")


class Wanted(NamedTuple):
    """
    What a valid file wants of the tables.

    Args:
        items: The missing rows.
        size: How many rows there should be.
        notes: Selections that have no effect.
    """

    items: frozenset[Item] = frozenset()
    size: int = 0
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class RoleFile:
    """
    The roles file, parsed again when it has changed; used by one cycle at a time.

    Attributes:
        document: Its content; without roles if it cannot be read.
        revision: A digest of its content; empty if it cannot be read.
        problem: What is wrong with it; None if it is valid.
        mistakes: All mistakes; an unreadable file has one.
    """

    path: str
    kinds: Kinds
    document: Document = field(default_factory=lambda: Document({}))
    revision: str = ""
    problem: SidecarError | None = None
    mistakes: tuple[Mistake, ...] = ()
    said: object = None

    def refresh(self) -> None:
        """
        Read the file; record its mistakes instead of raising them.
        """
        try:
            with open(self.path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
            why = f"is larger than {MAX_BYTES:,} bytes" if len(data) > MAX_BYTES else ""
        except OSError as error:
            data, why = b"", error.strerror or type(error).__name__
        before, self.revision = self.revision, ""
        if why:
            self.document = Document({})
            self._take("roles_file_unreadable", [Mistake(0, WHOLE, why)])
            return
        self.revision = hashlib.sha256(data).hexdigest()[:12]
        if self.revision != before:
            self.document = parse(data, self.kinds)

    @property
    def selected_by(self) -> frozenset[str]:
        """
        Return by what the file selects DAGs.
        """
        roles = self.document.roles.values()
        return frozenset(one.by for role in roles for one in role.selections)

    def compare(self, tables: Tables, defined: Defined | None) -> Wanted:
        """
        Return the rows that the file wants; none if it has mistakes, which are recorded.

        Args:
            defined: None if it is not known yet, and with it which permissions exist: then nothing
                is wanted.
        """
        if not self.revision:
            return Wanted()
        document = self.document
        found = _find_mistakes(document, tables, is_known=defined is not None)
        mistakes = [*document.mistakes, *found]
        if mistakes or defined is None:
            if mistakes:
                self._take("roles_file_invalid", mistakes)
            return Wanted()
        text = "the database's character set cannot store this name; the other roles still apply"
        unfit = sorted(tables.unfit & document.roles.keys())
        self._take("role_name_unsupported", [document.roles[n].where.mistake(text) for n in unfit])
        return want(document, tables, self.kinds, defined)

    def _take(self, reason: str, mistakes: list[Mistake]) -> None:
        """
        Record the mistakes; without any, the file is valid.
        """
        self.mistakes = tuple(sorted(mistakes))
        texts = [f"{self.path}:{mistake}" for mistake in self.mistakes[:NAMED_MISTAKES]]
        if more := len(mistakes) - len(texts):
            texts.append(f"and {more} more")
        self.problem = failure(reason, "; ".join(texts)) if mistakes else None
        said, self.said = self.said, (self.revision, self.mistakes)
        if said == self.said:
            return
        for line, key, problem in self.mistakes:
            log.warning("roles_file_refused", file=self.path, line=line, key=key, error=problem)
        if not mistakes:
            roles = len(self.document.roles)
            log.info("roles_file_accepted", file=self.path, revision=self.revision, roles=roles)


def _find_mistakes(document: Document, tables: Tables, *, is_known: bool) -> Iterator[Mistake]:
    """
    Yield the mistakes that only Airflow's database shows.

    Args:
        is_known: Whether Airflow has written its permissions.
    """
    names = {tables.spelled(role): role for role in DEFAULT_ROLES}  # by the database's spelling
    for name, role in document.roles.items():
        if (other := names.setdefault(tables.spelled(name), name)) != name:
            yield role.where.mistake(f"the database treats this name as {other}")
        for permission in role.permissions.keys() - tables.permissions if is_known else ():
            problem = f"this Airflow has no permission {' on '.join(permission)!r}"
            yield role.permissions[permission].mistake(problem)


def want(document: Document, tables: Tables, kinds: Kinds, defined: Defined) -> Wanted:
    """
    Return the rows that a valid file wants; pure.
    """
    prefixes = tuple(kind.prefix for kind in kinds.values())
    dags = list(tables.dags)
    ruled = {dag_id for dag_id, access in tables.dags.items() if access is not None}
    # Lists, because fifty sets of a thousand DAGs took 3 MiB (2026-11).
    chosen = {
        one: list(filter(_chooser(one, tables.places), dags))
        for role in document.roles.values()
        for one in role.selections
    }

    def permissions(name: str) -> Iterator[tuple[str, Permission]]:
        """
        Yield the permissions that a role must have, each with the id of its DAG, or empty.
        """
        for one in lineage(name, document.roles):
            role = document.roles.get(one)
            if role is None:  # Admin has all, which Airflow defines nowhere
                base = tables.grants.get(one, ()) if one == ADMIN else defined.get(one, ())
                yield from (("", given) for given in base if not given[1].startswith(prefixes))
                continue
            yield from (("", permission) for permission in role.permissions)
            for selection in role.selections:
                for kind, action in selection.permissions:
                    prefix = kinds[kind].prefix
                    for dag_id in chosen[selection]:
                        if dag_id not in ruled and len(prefix + dag_id) <= LONGEST:
                            yield dag_id, (action, prefix + dag_id)

    items: set[Item] = set()
    size = 0
    for name in document.roles:
        role = tables.spelled(name)
        if role in tables.unfit:  # it cannot be created, so it gets no grants
            items.add(Item("file_role", "", (role,)))
            continue
        held = tables.grants.get(role)
        if held is None:
            items |= {Item("file_role", "", (role,)), Item("file_grant", "", (role, *WEBSITE))}
        for dag_id, permission in permissions(name):
            size += 1
            if permission not in (held or ()):
                kind: Kind = "file_dag_grant" if dag_id else "file_grant"
                items.add(Item(kind, dag_id, (role, *permission)))
    notes = [
        f"{one.where.key} (line {one.where.line}): no DAG matches {one.by} {one.value}"
        for one, found in chosen.items()
        if not found
    ]
    notes += [
        f"DAG {dag_id}: the file selects it, but its own access_control decides"
        for dag_id in sorted(ruled.intersection(chain(*chosen.values())))
    ]
    return Wanted(frozenset(items), size, tuple(notes))


def _chooser(selection: Selection, places: Mapping[str, Place]) -> Callable[[str], bool]:
    """
    Return a function that reports whether a selection includes a DAG, by its id.
    """
    value, nowhere = selection.value, Place("", frozenset(), frozenset())
    fits = matcher(value) if selection.by == "folder" else None

    def chooses(dag_id: str) -> bool:
        place = places.get(dag_id, nowhere)
        if fits is not None:
            return fits(place.path)
        return value in {"id": (dag_id,), "tag": place.tags, "owner": place.owners}[selection.by]

    return chooses
