"""
The results of sync-perm and the loops that it replaces, as tables, a plot, and budgets.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.budgets import Outcome, at_most, at_most_part, at_most_seconds
from bench.report import Section, machine, seconds, table, times

OURS = "sync-perm"
LOOP = "while true; do airflow sync-perm; sleep 60; done"
LOOP_OF_DAGS = "while true; do airflow sync-perm --include-dags; sleep 60; done"
INCLUDE_DAGS = "airflow sync-perm --include-dags"
NEXT = "sync-perm, next pass"
CHANGED = 5
BUDGET_DAGS = 1_000
HOUR_PART, CHANGED_PART, CHANGED_NEXT_PART = 1 / 1_000, 1 / 10, 1 / 12
FIRST_SECONDS, IDLE_MIB = 0.6, 44
STARTING = "Nearly all of it is Airflow's own start, for any number of DAGs."
READING = "With 100 DAGs it is 41 MiB; the difference comes from the reads of all tables."


@dataclass
class Results:
    """
    All results for one number of DAGs; lists have CPU seconds, one value for each turn.

    Args:
        plain_hour, dags_hour: The loops, in an hour without a change.
        changed_peer: One run with `--include-dags` after some DAGs changed.
        poll, server_poll: One poll of sync-perm, and PostgreSQL's CPU for it.
        reading: One read of all tables.
        rest: An hour of sync-perm without any poll.
        changed: From the change of some DAGs to their grants, in the first pass of the process.
        changed_next: The same time in the next pass.
        first: From the start of the process until all is verified, without Airflow's share.
        definition: Airflow's share: the sync of its roles, once per process.
        rss_mib: Memory between passes.
        late_role_seconds: Wall seconds from the creation of a role to its grant.
        polls: Polls per hour, at the default INTERVAL.
    """

    polls: float
    plain_hour: list[float] = field(default_factory=list)
    dags_hour: list[float] = field(default_factory=list)
    changed_peer: list[float] = field(default_factory=list)
    poll: list[float] = field(default_factory=list)
    server_poll: list[float] = field(default_factory=list)
    reading: list[float] = field(default_factory=list)
    rest: list[float] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)
    changed_next: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    definition: list[float] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)
    late_role_seconds: list[float] = field(default_factory=list)

    @property
    def hours(self) -> list[float]:
        """
        The CPU seconds of an hour of sync-perm without a change, one for each turn.
        """
        return [
            poll * self.polls + reading + min(self.rest)
            for poll, reading in zip(self.poll, self.reading, strict=True)
        ]


def section(results: Mapping[int, Results], versions: Mapping[str, str]) -> Section:
    """
    Return the section of the page.
    """
    return Section(
        OURS,
        {
            "machine": machine(versions),
            "costs": "\n".join(costs(dags, one) for dags, one in results.items()),
        },
        [outcome for dags, one in results.items() for outcome in budgets(dags, one)],
    )


def budgets(dags: int, results: Results) -> list[Outcome]:
    """
    Return the outcomes of the budgets; those of ratios only for `BUDGET_DAGS`.
    """
    hour = min(results.hours) / min(results.plain_hour)
    passes = (
        ("first", CHANGED_PART, results.changed),
        ("next", CHANGED_NEXT_PART, results.changed_next),
    )
    ratios = [
        at_most_part(
            "an hour without a change, CPU", f"{dags:,} DAGs vs. the loop", HOUR_PART, hour
        ),
        *(
            at_most_part(
                f"{CHANGED} DAGs changed, CPU",
                f"of {dags:,}, {which} pass of a process vs. --include-dags",
                part,
                min(found) / min(results.changed_peer),
                STARTING,
            )
            for which, part, found in passes
        ),
    ]
    rss_mib = statistics.median(results.rss_mib)
    return [
        *(ratios if dags == BUDGET_DAGS else []),
        at_most("memory", f"between passes, {dags:,} DAGs", IDLE_MIB, rss_mib, "MiB", READING),
        at_most_seconds(
            "start",
            f"until all is verified, {dags:,} DAGs, CPU without Airflow's",
            FIRST_SECONDS,
            min(results.first),
        ),
    ]


def costs(dags: int, results: Results) -> str:
    """
    Return the table of one number of DAGs, and the composition of its figures.
    """
    rows = [row for what, found in situations(dags, results).items() for row in _rows(what, found)]
    late_text = _late_text(sorted(results.late_role_seconds))
    return (
        f"{table(['', 'situation', 'CPU', 'median', 'relative'], rows)}\n"
        f"The hour of sync-perm: {results.polls:.0f} polls of {seconds(min(results.poll))}, "
        f"one read of all tables of {seconds(min(results.reading))}, "
        f"and {seconds(min(results.rest))} of other work. "
        f"PostgreSQL uses {seconds(min(results.server_poll))} for each poll.\n"
        f"At the start of a process, Airflow takes {seconds(min(results.definition))} "
        f"to list the required permissions of roles.\n{late_text}"
    )


def _late_text(late: Sequence[float]) -> str:
    """
    Return a sentence on the sorted wait times of roles that were created after their DAGs.
    """
    if not late:
        return ""
    found = (
        f"{statistics.median(late):.0f} s in the median, {late[-1]:.0f} s at most "
        f"(wall, {len(late)} times)"
        if len(late) > 1
        else f"{late[0]:.0f} s (wall, once)"
    )
    return f"From the creation of a role to its grant: {found}.\n"


def situations(dags: int, results: Results) -> dict[str, dict[str, Sequence[float]]]:
    """
    Return the CPU seconds of each turn, by tool, by situation; sync-perm last.
    """
    return {
        f"an hour without a change, {dags:,} DAGs": {
            LOOP: results.plain_hour,
            LOOP_OF_DAGS: results.dags_hour,
            OURS: results.hours,
        },
        f"{CHANGED} of {dags:,} DAGs changed": {
            INCLUDE_DAGS: results.changed_peer,
            NEXT: results.changed_next,
            OURS: results.changed,
        },
    }


def plot(dags: int, results: Results) -> list[tuple[str, dict[str, float]]]:
    """
    Return the bars: the lowest CPU seconds by tool, by situation.
    """
    labels = {LOOP: "loop of sync-perm", LOOP_OF_DAGS: "loop of --include-dags"}
    return [
        (what, {labels.get(name, name): min(values) for name, values in found.items()})
        for what, found in situations(dags, results).items()
    ]


def _rows(what: str, found: Mapping[str, Sequence[float]]) -> list[list[str]]:
    ours = min(found[OURS])
    return [
        [
            f"**{name}**" if name in (OURS, NEXT) else f"`{name}`",
            what,
            seconds(min(values)),
            seconds(statistics.median(values)),
            times(min(values) / ours),
        ]
        for name, values in found.items()
    ]
