"""
Decides which pass fixes a difference; pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from sync_perm.difference import Item

Reason = Literal["asked", "start", "roles", "dags", "file"]
REASONS: tuple[Reason, ...] = get_args(Reason)

CliCause = Literal["setting", "version", "script"]
"""Configured; our script was never tested with this version; our script failed on this Airflow."""
CLI_CAUSES: tuple[CliCause, ...] = get_args(CliCause)


@dataclass(frozen=True, slots=True)
class Pass:
    """
    The work of one pass.

    Args:
        reason: SIGHUP or a one-shot asked for it; the roles' definition could not be read at the
            start; roles differ; only DAGs differ; only rows of the roles file are missing.
        roles: Whether to sync roles and Airflow's own views.
        dags: The DAGs to sync.
        given: The missing rows of the roles file.
    """

    reason: Reason
    roles: bool
    dags: tuple[str, ...]
    given: tuple[Item, ...] = ()

    @property
    def every_dag(self) -> frozenset[str]:
        """
        Return the DAGs whose permissions this pass writes.
        """
        return frozenset(self.dags).union(item.dag_id for item in self.given) - {""}


def make_plan(
    items: frozenset[Item],
    *,
    every_dag: Iterable[str],
    is_asked: bool,
    is_defined: bool,
) -> Pass | None:
    """
    Return the pass that is needed, or None.

    Args:
        items: The rows to change.
        every_dag: The DAGs of a full pass; empty if DAGs are not included.
        is_asked: Whether SIGHUP or a one-shot wants a full pass.
        is_defined: Whether the roles' definition is known; otherwise Airflow writes it.
    """
    given = tuple(sorted(item for item in items if item.is_of_file))
    airflows = items.difference(given)
    if is_asked:
        return Pass("asked", True, tuple(sorted(every_dag)), given)
    if is_defined and not items:
        return None
    dags = tuple(sorted({item.dag_id for item in airflows if item.dag_id}))
    if not is_defined:
        return Pass("start", True, dags, given)
    if any(not item.dag_id for item in airflows):
        return Pass("roles", True, dags, given)
    return Pass("dags" if dags else "file", False, dags, given)
