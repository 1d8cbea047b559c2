"""
Decides what is to be done now, or until when nothing is, and why; and what a pass has
taught. It knows the tables, the memory and the time, and nothing else.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from sidecar_runtime.errors import SidecarError
from sync_perm.airflow import Report, Work
from sync_perm.compare import Item, Row
from sync_perm.inside_airflow import ENDED
from sync_perm.reasons import failure
from sync_perm.roles_file import Defined
from sync_perm.tables import Look

# Of the roles file, at most this many rows at a time: about a minute.
MOST_FILE_ROWS = 2_000
# How long a row that two passes did not fix is left alone; one may have met another
# process that wrote the same rows at the same moment.
HELD_SECONDS = 600.0
# A pass that fails, or writes what others undo, is followed by a wait of 10, 20, 40, …
# seconds.
PAUSE_SECONDS = 5.0
MAX_PAUSE_SECONDS = 300.0
# Within ten minutes.
MOST_STRIKES = 6
# If a pass writes only what others wrote within this time, another process undoes it:
# long enough for three passes with the longest pauses between them.
UNDONE_SECONDS = 4 * MAX_PAUSE_SECONDS


Rows = frozenset[object]
"""What a pass changed: items, and rows that belong to no DAG."""


class Wait(NamedTuple):
    """
    There is work, but not before this monotonic time.
    """

    until: float
    why: SidecarError


class Done(NamedTuple):
    """
    There is no work before this monotonic time, unless something changes.
    """

    until: float


@dataclass(slots=True)
class Memory:
    """
    What is known from earlier passes; all times are monotonic.

    Args:
        synced: The general rows when Airflow's own sync last left them as they were;
            None until it has run, and empty if it is due again, because it has changed
            them, or SIGHUP asks for it.
        defined: What Airflow defines for its roles.
        doubted: The rows that a pass did not fix.
        held: Those of them that another pass did not fix either, and why.
        held_until: The time of the next try for them.
        written: What passes wrote, and when.
        strikes: How many passes in a row failed, or wrote rows that had been undone.
        next_at: The time before which no pass starts.
        error: Why the last pass failed; None if it did not.
    """

    synced: frozenset[Row] | None = None
    defined: Defined | None = None
    doubted: Set[Item] = frozenset()
    held: Mapping[Item, str] = field(default_factory=dict)
    held_until: float = 0.0
    written: Sequence[tuple[float, Rows]] = ()
    strikes: int = 0
    next_at: float = float("-inf")
    error: SidecarError | None = None


def decide(look: Look, memory: Memory, now: float) -> Work | Wait | Done:
    """
    Return what is to be done about the tables.
    """
    is_held = now < memory.held_until
    items = look.difference.items - (memory.held.keys() if is_held else set())
    dags = {item.dag_id for item in items if item.dag_id}
    # Roles first, because a DAG may name them.
    given = sorted((one for one in items if not one.dag_id), reverse=True)
    # What another hand changed of these rows, only Airflow can judge.
    roles = memory.synced != look.general
    if not (dags or given or roles):
        return Done(memory.held_until if memory.held else float("inf"))
    if now < memory.next_at:
        return Wait(
            memory.next_at,
            memory.error
            or failure("permissions_differ", "another process undoes what is written"),
        )
    # What a pass could not fix, or ended in, comes last, so that it keeps no other DAG
    # waiting.
    doubted = {item.dag_id for item in memory.doubted}
    return Work(
        roles,
        sorted(dags, key=lambda one: (one in doubted, one)),
        given[:MOST_FILE_ROWS],
    )


def forget_fixed(memory: Memory, look: Look) -> None:
    """
    Forget the doubts about rows that no longer differ, whoever has fixed them.
    """
    memory.doubted &= look.difference.items
    memory.held = {
        one: why for one, why in memory.held.items() if one in memory.doubted
    }


def written(before: Look, after: Look) -> Rows:
    """
    Return the rows that a pass changed.
    """
    fixed = before.difference.items - after.difference.items
    return fixed | (before.general ^ after.general)


def learn(
    memory: Memory, work: Work, report: Report, before: Look, after: Look, now: float
) -> Rows:
    """
    Remember what a pass has taught; return what it wrote if another process keeps
    undoing it.

    Roles are synced if Airflow's own sync has left all rows as they were: whatever it
    changed, or another process changed meanwhile, is judged by another run.
    """
    memory.error = report.error
    undone: Rows = frozenset()
    # They come first, so that what ends a pass later, such as one DAG, undoes nothing of
    # this.
    if report.is_synced:
        is_left = before.general == after.general
        memory.synced = after.general if is_left else frozenset()
    _note_unfixed(memory, work, report, after, now)
    if report.error is None:
        rows = written(before, after)
        # What only this pass has let us compare, such as the roles file, was not its work.
        if (
            (before.difference.items & after.difference.items)
            and not rows
            and isinstance(decide(after, memory, now), Work)
        ):
            said = (f"{name}: {text}" for name, text in report.tried.items() if text)
            memory.error = failure(
                "pass_failed",
                next(said, "Airflow has written none of the rows that differ"),
            )
        undone = _note_written(memory, rows, now)
    memory.strikes = memory.strikes + 1 if undone or memory.error else 0
    if memory.strikes:
        memory.next_at = now + min(
            MAX_PAUSE_SECONDS, PAUSE_SECONDS * 2.0 ** min(memory.strikes, 10)
        )
    return undone


def _note_unfixed(
    memory: Memory, work: Work, report: Report, after: Look, now: float
) -> None:
    """
    Remember the rows that a pass tried and did not fix; the second time, leave them
    alone for a while. Of a pass that failed, those of the DAG or role in which it
    ended.

    If each of several DAGs and roles failed for the first time, not they are wrong, but
    the database, such as one without space. Passes that fail for ten minutes say that
    they are wrong after all.
    """
    tried = report.tried
    if report.error:
        said = report.error.message
        tried = {one: said for one, text in tried.items() if text == ENDED}
    is_new = tried.keys().isdisjoint(one.name for one in memory.doubted)
    if (
        is_new
        and len(tried) > 1
        and all(tried.values())
        and memory.strikes < MOST_STRIKES
    ):
        return
    # Of a role, a pass may be given only some rows: see MOST_FILE_ROWS.
    missed = {
        one
        for one in after.difference.items
        if one.name in tried and (one.dag_id or one in work.given)
    }
    again = missed & memory.doubted
    if again:
        held = {
            one: tried.get(one.name)
            or f"{one} still differs after a pass without an error"
            for one in again
        }
        memory.held = {**memory.held, **held}
        if now >= memory.held_until:  # else new ones would put off the older ones' try
            memory.held_until = now + HELD_SECONDS
    memory.doubted |= missed


def _note_written(memory: Memory, rows: Rows, now: float) -> Rows:
    """
    Remember what this pass wrote, and return it if another process undoes it.

    Once again is an accident, or a person who tries something; the third time, another
    process undoes it.
    """
    recent = [one for one in memory.written if one[0] > now - UNDONE_SECONDS]
    memory.written = [*recent, (now, rows)]
    times = sum(frozenset() < rows <= earlier for _, earlier in recent)
    return rows if times > 1 else frozenset()
