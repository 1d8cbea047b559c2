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
from sync_perm.database.tables import Grant, Reader, Tables
from sync_perm.difference import Failure, Item, assume_defaults, compare
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
    """

    tables: Tables
    items: frozenset[Item]
    shown: frozenset[Item]
    failing: Mapping[str, Failure]

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
    """

    def __init__(self, installation: Installation, *, include_dags: bool, targeted: bool) -> None:
        self.include_dags = include_dags
        self._targeted = targeted
        self._kinds = installation.resources
        self._reader = Reader(include_dags=include_dags, has_versions=installation.release[0] >= 3)
        self._defaults: frozenset[Grant] | None = None
        self.fresh: frozenset[str] = frozenset()
        self._said: Mapping[str, str] = {}
        self._kept: frozenset[Item] = frozenset()
        self._kept_until = 0.0
        self._is_first = True

    @property
    def wants_retry(self) -> bool:
        """
        Tell whether it is time to try again what passes did not fix.
        """
        return bool(self._kept) and time.monotonic() > self._kept_until

    def look(self, database: Database) -> Look:
        """
        Read the tables and compare.

        Raises:
            SidecarError: The database failed.
        """
        tables = self._reader.read(database)
        self.fresh = tables.fresh
        if self._defaults is None:
            self._defaults = assume_defaults(tables, self._kinds)
        difference = compare(tables, self._kinds, self._defaults)
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
            is_first=self._is_first,
        )

    def learn(self, work: Pass, report: Report) -> None:
        """
        Take what a pass said.
        """
        self._is_first = False
        self._said = report.failed
        if report.defaults is not None:
            self._defaults = report.defaults
        elif not self._targeted:
            self._defaults = None  # as the next look finds them

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
        return Look(tables, items, shown, {**known, **failing})
