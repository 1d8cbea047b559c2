"""
Which pass fixes a difference: pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from sync_perm.difference import Item

Reason = Literal["asked", "start", "roles", "dags", "file"]
REASONS: tuple[Reason, ...] = get_args(Reason)

CliCause = Literal["setting", "version", "script"]
"""It is set; our script was never tried with this version; it was, and does not fit."""
CLI_CAUSES: tuple[CliCause, ...] = get_args(CliCause)


@dataclass(frozen=True, slots=True)
class Pass:
    """
    What Airflow is asked to do.

    Args:
        reason: A person or a one-shot asks; the process has started and what roles must have could
            not be read; roles differ; only DAGs differ; only what the file of roles asks for.
        roles: Whether to sync roles and Airflow's own views.
        dags: The DAGs to sync.
        given: What the file of roles asks for, and is missing.
    """

    reason: Reason
    roles: bool
    dags: tuple[str, ...]
    given: tuple[Item, ...] = ()

    @property
    def every_dag(self) -> frozenset[str]:
        """
        Return the DAGs whose permissions are written.
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
    Return the pass that is needed, if one is.

    Args:
        items: The rows to change.
        every_dag: What a full pass syncs; none where DAGs are not included.
        is_asked: A person or a one-shot wants a full pass.
        is_defined: It is known what roles must have; otherwise Airflow writes it.
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
