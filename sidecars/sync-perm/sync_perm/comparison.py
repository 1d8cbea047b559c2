"""
Compares what is with what should be, and remembers what Airflow said of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from sync_perm.airflow.installation import Installation
from sync_perm.airflow.passes import Report
from sync_perm.database.database import Database
from sync_perm.database.tables import Reader, Tables
from sync_perm.difference import Definition, Failure, Item, compare, define
from sync_perm.plan import Pass, make_plan

# How long what passes did not fix is not a reason for another one.
KEPT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Look:
    """
    The tables at one moment, and what is wrong with them.

    Args:
        items: Rows that a pass should change.
        shown: Those of them that are not ready; a DAG that passes did not fix is failing instead.
        failing: The DAGs that cannot be synced.
        is_defined: What roles must have was compared, too.
    """

    tables: Tables
    items: frozenset[Item]
    shown: frozenset[Item]
    failing: Mapping[str, Failure]
    is_defined: bool

    def changes_since(self, before: Look) -> dict[str, int]:
        """
        Return how many rows came and went.
        """
        now, then = self.tables, before.tables
        return {
            "permissions_added": len(now.permissions - then.permissions),
            "permissions_removed": len(then.permissions - now.permissions),
            "grants_added": len(now.grants - then.grants),
            "grants_removed": len(then.grants - now.grants),
            "broken_removed": max(0, then.broken - now.broken),
        }


class Comparison:
    """
    One for the whole process; used by one cycle at a time.

    Attributes:
        fresh: The DAGs that were serialized again between the last two looks.
        wants_definition: Nobody has tried yet to read what this Airflow defines.
    """

    def __init__(self, installation: Installation, *, include_dags: bool) -> None:
        self.include_dags = include_dags
        self._kinds = installation.resources
        self._reader = Reader(include_dags=include_dags, has_versions=installation.release[0] >= 3)
        self.wants_definition = True
        self._definition: Definition | None = None
        self._is_read = False
        self._was_written = False
        self.fresh: frozenset[str] = frozenset()
        self._said: Mapping[str, str] = {}
        self._kept: frozenset[Item] = frozenset()
        self._kept_until = 0.0

    @property
    def wants_retry(self) -> bool:
        """
        Tell whether it is time to try again what passes did not fix.
        """
        return bool(self._kept) and time.monotonic() > self._kept_until

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
        tables = self._reader.read(database)
        self.fresh = tables.fresh
        if self._was_written:
            self._definition = define(tables, self._kinds)
            self._was_written = False
        difference = compare(tables, self._kinds, self._definition)
        if self.wants_retry:
            self._kept = frozenset()
        self._kept &= difference.items
        return self._judge(tables, difference.items, difference.failing)

    def plan(self, look: Look, *, is_asked: bool) -> Pass | None:
        """
        Return the pass that is needed, if one is.
        """
        return make_plan(
            look.items - self._kept,
            every_dag=look.tables.dags.keys() - self._kinds.keys(),
            is_asked=is_asked,
            is_defined=look.is_defined,
        )

    def learn(self, work: Pass, report: Report) -> None:
        """
        Take what a pass said.
        """
        self._said = report.failed
        self._was_written = work.roles and not self._is_read

    def keep(self, items: frozenset[Item], look: Look) -> Look:
        """
        Accept for a while what passes did not fix; return the look as it is judged then.
        """
        self._kept = items
        self._kept_until = time.monotonic() + KEPT_SECONDS
        return self._judge(look.tables, look.items, look.failing)

    def _judge(
        self, tables: Tables, items: frozenset[Item], failing: Mapping[str, Failure]
    ) -> Look:
        kept = {item.dag_id for item in self._kept if item.dag_id}
        shown = frozenset(item for item in items if not item.dag_id or item not in self._kept)
        texts = dict.fromkeys(kept, "differs after a pass that found nothing wrong")
        texts |= {dag_id: self._said[dag_id] for dag_id in kept & self._said.keys()}
        known = {dag_id: Failure("not_fixed", text) for dag_id, text in texts.items()}
        return Look(tables, items, shown, {**known, **failing}, self._definition is not None)
