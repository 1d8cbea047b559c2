"""
Compares the tables with their definition, and remembers what passes reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from sync_perm.airflow.installation import Installation
from sync_perm.database.database import Database
from sync_perm.database.fingerprint import Fingerprint, read_fingerprint
from sync_perm.database.tables import Grants, Reader, Tables
from sync_perm.difference import (
    DEFAULT_ROLES,
    WEBSITE,
    Definition,
    Failure,
    Item,
    compare,
    define,
)
from sync_perm.plan import Pass, make_plan
from sync_perm.role_file.document import Selection
from sync_perm.role_file.file import RoleFile
from sync_perm.role_file.wanted import Wanted, find_mistakes

# How long a difference that passes did not fix starts no other pass.
HELD_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Look:
    """
    The tables at one time, and their differences.

    Args:
        items: The rows that a pass should change.
        shown: The rows among them that count against readiness; a DAG that passes did not fix is
            in `failing` instead.
        failing: The DAGs that cannot be synced.
        is_defined: Whether the roles were compared with their definition.
        wanted: What the roles file asks for; None without a valid file.
    """

    tables: Tables
    items: frozenset[Item]
    shown: frozenset[Item]
    failing: Mapping[str, Failure]
    is_defined: bool
    wanted: Wanted | None

    def is_hopeless(self, item: Item) -> bool:
        """
        Whether no pass can write the row: a role whose name the database cannot store.
        """
        return item.kind == "file_role" and item.row[0] in self.tables.unfit

    def changes_since(self, before: Look) -> dict[str, int]:
        """
        Return how many rows were added and removed.
        """
        now, then = self.tables, before.tables
        return {
            "permissions_added": len(now.permissions - then.permissions),
            "permissions_removed": len(then.permissions - now.permissions),
            "grants_added": _count_beyond(now.grants, then.grants),
            "grants_removed": _count_beyond(then.grants, now.grants),
            "broken_removed": max(0, then.broken - now.broken),
        }


def _count_beyond(grants: Grants, others: Grants) -> int:
    return sum(len(held - others.get(role, frozenset())) for role, held in grants.items())


class Comparison:
    """
    Compares the tables, for the whole process; used by one cycle at a time.

    Args:
        file: The roles file; None without one.
        dags_folder: The folder of Airflow 2's DAGs, for DAGs whose row does not name one.

    Attributes:
        include_dags: Whether DAG permissions should be as Airflow would leave them.
        fresh: The DAGs that were serialized again between the last two looks.
        wants_definition: Whether this Airflow's definition has not been read yet.
    """

    def __init__(
        self,
        installation: Installation,
        *,
        include_dags: bool,
        file: RoleFile | None = None,
        dags_folder: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.include_dags = include_dags
        self.file = file
        self._kinds = installation.resources
        self._reader = Reader(release=installation.release, dags_folder=dags_folder)
        # Until this Airflow's definition is read, it is derived from the tables after a pass.
        self.wants_definition = True
        self._definition: Definition | None = None
        self._was_written = False
        self.fresh: frozenset[str] = frozenset()
        self._said: Mapping[str, str] = {}
        self._clock = clock
        # The rows that passes did not fix, and those that start no other pass yet.
        self._kept: frozenset[Item] = frozenset()
        self._held: frozenset[Item] = frozenset()
        self._held_until = 0.0

    @property
    def wants_retry(self) -> bool:
        """
        Whether it is time to retry the rows that passes did not fix.
        """
        return bool(self._held) and self._clock() > self._held_until

    @property
    def is_inherited(self) -> bool:
        """
        Whether a role of the file inherits from one of Airflow's own.
        """
        roles = self.file.document.roles if self.file and self.file.document else {}
        return any(not role.bases.keys().isdisjoint(DEFAULT_ROLES) for role in roles.values())

    def fingerprint(self, database: Database) -> Fingerprint:
        """
        Read a fingerprint that changes with any compared row.

        Raises:
            SidecarError: The database failed.
        """
        by = {selection.by for selection in self._selections}
        found = read_fingerprint(
            database,
            include_dags=self._needs_dags,
            path_column=self._reader.path_column if "folder" in by else "",
            include_tags="tag" in by,
        )
        return found.beside(self.file.revision) if self.file else found

    @property
    def _selections(self) -> list[Selection]:
        return list(self.file.document.selections) if self.file and self.file.document else []

    @property
    def _needs_dags(self) -> bool:
        return self.include_dags or bool(self._selections)

    @property
    def _needs_places(self) -> bool:
        return any(selection.by != "id" for selection in self._selections)

    def define(self, empty: Tables) -> None:
        """
        Take the definition from the rows that Airflow has written into an empty database.
        """
        self._definition = define(empty, self._kinds, empty.roles)
        self.wants_definition = self._was_written = False

    def look(self, database: Database, *, ahead: bool = False) -> Look:
        """
        Read the tables and compare.

        Args:
            ahead: Whether to compare as if the file's new roles existed, as a second pass does, and
                to read the access control of DAGs even if no difference depends on it, for
                :meth:`Wanted.surplus`.

        Raises:
            SidecarError: The database failed.
        """
        document = self.file.document if self.file else None
        defined = self._definition.roles if self._definition else ()
        tables = self._reader.read(
            database,
            dags=ahead or self._needs_dags,
            places=self._needs_places,
            names=(*(document.roles if document else ()), *defined),
        )
        self.fresh = tables.fresh
        if self._was_written:
            self._definition = define(tables, self._kinds)
            self._was_written = False
        of_airflow = tables if self.include_dags else replace(tables, dags={})
        wanted = self._want(tables)
        if ahead and document and wanted:
            created = document.roles.keys() - tables.aliases.keys() - tables.unfit
            new = {role: {WEBSITE} for role in created}
            of_airflow = replace(of_airflow, grants={**new, **tables.grants})
        difference = compare(of_airflow, self._kinds, self._definition)
        items = difference.items.union(wanted.items() if wanted else ())
        if self.wants_retry:
            self._held = frozenset()
        self._kept &= items
        self._held &= items
        return self._judge(tables, items, difference.failing, wanted)

    def _want(self, tables: Tables) -> Wanted | None:
        """
        Return what the file asks for; None if that is not known yet or the file is invalid.
        """
        if self.file is None or self.file.document is None:
            return None
        mistakes = find_mistakes(self.file.document, tables, self._definition)
        if self._definition is None and not mistakes:
            return None  # this Airflow's permissions are not known yet
        self.file.judge(mistakes, tables.unfit)
        if self._definition is None or mistakes:
            return None
        known = self._definition
        if self.wants_definition:  # the tables may grant a base more than this Airflow defines
            known = replace(known, grants={})
        return Wanted(self.file.document, tables, self._kinds, known)

    def plan(self, look: Look, *, is_asked: bool) -> Pass | None:
        """
        Return the pass that is needed, or None.
        """
        return make_plan(
            frozenset(item for item in look.items - self._held if not look.is_hopeless(item)),
            every_dag=look.tables.dags.keys() - self._kinds.keys() if self.include_dags else (),
            is_asked=is_asked,
            is_defined=look.is_defined,
        )

    def learn(self, work: Pass, failed: Mapping[str, str]) -> None:
        """
        Remember which DAGs a pass could not sync, and why.
        """
        self._said = failed
        self._was_written = work.roles and self.wants_definition

    def keep(self, items: frozenset[Item], look: Look) -> Look:
        """
        Hold rows that passes did not fix until a later retry; return the look, judged again.
        """
        self._kept = self._held = items
        self._held_until = self._clock() + HELD_SECONDS
        return self._judge(look.tables, look.items, look.failing, look.wanted)

    def _judge(
        self,
        tables: Tables,
        items: frozenset[Item],
        failing: Mapping[str, Failure],
        wanted: Wanted | None,
    ) -> Look:
        kept = {item.dag_id for item in self._kept if item.dag_id}
        shown = frozenset(item for item in items if not item.dag_id or item not in self._kept)
        texts = dict.fromkeys(kept, "still differs after a pass that reported success")
        texts |= {dag_id: self._said[dag_id] for dag_id in kept & self._said.keys()}
        known = {dag_id: Failure("not_fixed", text) for dag_id, text in texts.items()}
        is_defined = self._definition is not None
        return Look(tables, items, shown, {**known, **failing}, is_defined, wanted)
