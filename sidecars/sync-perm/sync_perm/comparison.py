"""
Compares what is with what should be, and remembers what Airflow said of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from sidecar_runtime.errors import SidecarError
from sync_perm.airflow.installation import Installation
from sync_perm.database.database import Database
from sync_perm.database.fingerprint import Fingerprint, read_fingerprint
from sync_perm.database.tables import Grants, Reader, Tables
from sync_perm.difference import Definition, Failure, Item, compare, define
from sync_perm.plan import Pass, make_plan
from sync_perm.role_file.document import Selection
from sync_perm.role_file.file import RoleFile
from sync_perm.role_file.wanted import Wanted, find_mistakes

# How long what passes did not fix is not a reason for another one.
HELD_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Look:
    """
    The tables at one moment, and what is wrong with them.

    Args:
        items: Rows that a pass should change.
        shown: Those of them that are not ready; a DAG that passes did not fix is failing instead.
        failing: The DAGs that cannot be synced.
        is_defined: What roles must have was compared, too.
        wanted: What the file of roles asks for; None without one that counts.
    """

    tables: Tables
    items: frozenset[Item]
    shown: frozenset[Item]
    failing: Mapping[str, Failure]
    is_defined: bool
    wanted: Wanted | None

    def is_hopeless(self, item: Item) -> bool:
        """
        Tell whether no pass can write it: a role whose name the database cannot hold.
        """
        return item.kind == "file_role" and item.row[0] in self.tables.unfit

    def changes_since(self, before: Look) -> dict[str, int]:
        """
        Return how many rows came and went.
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
    One for the whole process; used by one cycle at a time.

    Args:
        file: The roles that people want besides Airflow's.
        dags_folder: Where Airflow 2 finds its DAGs, unless their rows say it.

    Attributes:
        include_dags: Whether DAGs are to be as Airflow would leave them.
        fresh: The DAGs that were serialized again between the last two looks.
        wants_definition: Nobody has tried yet to read what this Airflow defines.
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
        self._reader = Reader(has_versions=installation.release[0] >= 3, dags_folder=dags_folder)
        self.wants_definition = True
        self._definition: Definition | None = None
        self._is_read = False
        self._was_written = False
        self.fresh: frozenset[str] = frozenset()
        self._said: Mapping[str, str] = {}
        self._clock = clock
        # What passes did not fix; and which of it is no reason for another one yet.
        self._kept: frozenset[Item] = frozenset()
        self._held: frozenset[Item] = frozenset()
        self._held_until = 0.0

    @property
    def wants_retry(self) -> bool:
        """
        Tell whether it is time to try again what passes did not fix.
        """
        return bool(self._held) and self._clock() > self._held_until

    @property
    def file_problem(self) -> SidecarError | None:
        """
        Return why the file of roles does not count; None where it does, or there is none.
        """
        return self.file.problem if self.file else None

    def fingerprint(self, database: Database) -> Fingerprint:
        """
        Ask for what changes when anything does that is compared.

        Raises:
            SidecarError: The database failed.
        """
        needs_paths = any(selection.by == "folder" for selection in self._selections)
        path_column = self._reader.path_column if needs_paths else ""
        found = read_fingerprint(database, include_dags=self._needs_dags, path_column=path_column)
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

    def define(self, empty: Tables | None) -> None:
        """
        Take what Airflow has written into an empty database.

        Args:
            empty: None where it could not: then the definition is what its passes leave.
        """
        self.wants_definition = False
        if empty is not None:
            self._definition = define(empty, self._kinds)
            self._is_read = True

    def look(self, database: Database) -> Look:
        """
        Read the tables and compare.

        Raises:
            SidecarError: The database failed.
        """
        document = self.file.document if self.file else None
        tables = self._reader.read(
            database,
            dags=self._needs_dags,
            places=self._needs_places,
            names=document.roles if document else (),
        )
        self.fresh = tables.fresh
        if self._was_written:
            self._definition = define(tables, self._kinds)
            self._was_written = False
        of_airflow = tables if self.include_dags else replace(tables, dags={})
        difference = compare(of_airflow, self._kinds, self._definition)
        wanted = self._want(tables)
        items = difference.items.union(wanted.items() if wanted else ())
        if self.wants_retry:
            self._held = frozenset()
        self._kept &= items
        self._held &= items
        return self._judge(tables, items, difference.failing, wanted)

    def _want(self, tables: Tables) -> Wanted | None:
        """
        Return what the file asks for, if it can be told and is right.
        """
        if self.file is None or self.file.document is None:
            return None
        mistakes = find_mistakes(self.file.document, tables, self._definition)
        if self._definition is None and not mistakes:
            return None  # its permissions are not known yet
        self.file.judge(mistakes, tables.unfit)
        if self._definition is None or mistakes:
            return None
        return Wanted(self.file.document, tables, self._kinds, self._definition)

    def plan(self, look: Look, *, is_asked: bool) -> Pass | None:
        """
        Return the pass that is needed, if one is.
        """
        return make_plan(
            frozenset(item for item in look.items - self._held if not look.is_hopeless(item)),
            every_dag=look.tables.dags.keys() - self._kinds.keys() if self.include_dags else (),
            is_asked=is_asked,
            is_defined=look.is_defined,
        )

    def learn(self, work: Pass, failed: Mapping[str, str]) -> None:
        """
        Take what a pass said: the DAGs that it could not sync, and why.
        """
        self._said = failed
        self._was_written = work.roles and not self._is_read

    def keep(self, items: frozenset[Item], look: Look) -> Look:
        """
        Accept for a while what passes did not fix; return the look as it is judged then.
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
        texts = dict.fromkeys(kept, "differs after a pass that found nothing wrong")
        texts |= {dag_id: self._said[dag_id] for dag_id in kept & self._said.keys()}
        known = {dag_id: Failure("not_fixed", text) for dag_id, text in texts.items()}
        is_defined = self._definition is not None
        return Look(tables, items, shown, {**known, **failing}, is_defined, wanted)
