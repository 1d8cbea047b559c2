"""
The share of a core that passes may take, however often the tables are edited.
"""

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from sync_perm.difference import Item
from sync_perm.pace import Pace, PassHistory
from tests.support.machine.clocks import Clock

PASS_SECONDS = 4.0
FOE_SECONDS = 2.0
ROWS = [Item("role_grant", "", ("Viewer", "can_read", f"view {n}")) for n in range(250)]
HOUR_SECONDS = 3_600

Foe = Callable[[random.Random], Item]
FOES: dict[str, Foe] = {
    "one row": lambda _: ROWS[0],
    "three rows": lambda dice: dice.choice(ROWS[:3]),
    "any row": lambda dice: dice.choice(ROWS),
    "new roles": lambda dice: Item("role_grant", "", (f"role {dice.random()}", "can_read", "x")),
}


class Site:
    """A simulation: a clock, passes that take a whole core while they run, and missing rows."""

    def __init__(self, foe: Foe | None, pass_seconds: float = PASS_SECONDS) -> None:
        self.clock = Clock()
        self.history = PassHistory(Pace(), clock=self.clock)
        self.history.settle(frozenset({"Viewer"}))
        self.missing: set[Item] = set()
        self.began: list[float] = []
        self.pass_seconds = pass_seconds
        self._foe = foe
        self._random = random.Random(7)

    def run(self, seconds: float) -> None:
        until = self.clock.seconds + seconds
        while self.clock.seconds < until:
            if self._foe:
                self.lose(self._foe(self._random))
            if self.missing:
                self.pass_if_due()
            self.clock.seconds += FOE_SECONDS

    def lose(self, item: Item, *, is_fresh: bool = False) -> None:
        self.missing.add(item)
        self.history.notice(frozenset({str(item.row[0])}), is_fresh=is_fresh)

    def pass_if_due(self) -> None:
        items = frozenset(self.missing)
        if self.clock.seconds >= max(self.history.next_at, self.history.affordable_at(items)):
            self.began.append(self.clock.seconds)
            self.clock.seconds += self.pass_seconds
            self.history.note_pass(items, self.pass_seconds)
            self.history.settle(frozenset({"Viewer"}))
            self.missing.clear()


@pytest.mark.parametrize("pass_seconds", [4.0, 24.0, 60.0])
@pytest.mark.parametrize("foe", FOES.values(), ids=FOES.keys())
def test_constant_edits_for_a_day_stay_within_the_cpu_budget(foe: Foe, pass_seconds: float) -> None:
    site, pace = Site(foe, pass_seconds), Pace()

    site.run(24 * HOUR_SECONDS)

    for since in site.began:
        hour = [at for at in site.began if since <= at < since + HOUR_SECONDS]
        assert len(hour) * pass_seconds <= HOUR_SECONDS * 2 * pace.core_share
    most_seconds = 24 * HOUR_SECONDS * pace.core_share + pace.news_seconds + pass_seconds
    assert len(site.began) * pass_seconds <= most_seconds
    assert site.history.debt_seconds <= pace.news_seconds + pass_seconds
    longest = max(900, 20 * pass_seconds) + pass_seconds + 2 * FOE_SECONDS
    assert max(after - before for before, after in pairwise(site.began)) <= longest


def test_a_contested_row_waits_15_minutes_at_most_after_hours_of_new_roles() -> None:
    site = Site(FOES["new roles"], 24.0)
    site.run(6 * HOUR_SECONDS)
    site._foe = FOES["one row"]
    passes = len(site.began)

    site.run(HOUR_SECONDS)

    assert max(after - before for before, after in pairwise(site.began[passes - 1 :])) <= 930


def test_even_a_very_long_pass_is_paid_back_before_the_next() -> None:
    pass_seconds, pace = 1_000.0, Pace()
    site = Site(FOES["one row"], pass_seconds)

    site.run(24 * HOUR_SECONDS)

    most_seconds = 24 * HOUR_SECONDS * pace.core_share + pace.news_seconds + pass_seconds
    assert len(site.began) * pass_seconds <= most_seconds


def test_fixes_the_last_damage_within_minutes_after_constant_edits_end() -> None:
    site = Site(FOES["one row"])
    site.run(600)
    passes = len(site.began)
    site._foe = None
    site.missing = {ROWS[0]}

    site.run(180)

    assert (passes + 1, set()) == (len(site.began), site.missing)


@pytest.mark.parametrize("role", ["role {}", "Viewer"], ids=["roles", "DAGs"])
def test_new_roles_and_dags_that_appear_one_after_another_do_not_wait(role: str) -> None:
    site = Site(None)
    for number in range(20):
        item = Item("role_grant", "", (role.format(number), "can_read", f"DAG:{number}"))
        site.lose(item, is_fresh=role == "Viewer")
        site.run(2 * FOE_SECONDS + PASS_SECONDS)

    assert 20 == len(site.began)


def test_does_not_remember_more_rows_than_a_person_edits() -> None:
    history = PassHistory(Pace(), clock=Clock())
    many = frozenset(Item("file_grant", "", (f"role {n}",)) for n in range(1_001))

    for items in (many, frozenset(ROWS), frozenset()):
        history.note_pass(items, PASS_SECONDS)

    assert [frozenset(ROWS)] == [items for _, items in history.written]


def test_a_pass_is_forgotten_after_ten_minutes() -> None:
    clock = Clock()
    history = PassHistory(Pace(), clock=clock)
    for _ in range(3):
        history.note_pass(frozenset(ROWS[:1]), PASS_SECONDS)
    contested = history.affordable_at(frozenset(ROWS[:1])) - history.ended_at

    clock.seconds += 601

    assert contested == pytest.approx(3 * PASS_SECONDS / Pace().core_share)
    assert history.affordable_at(frozenset(ROWS[:1])) < clock.seconds


def test_default_waits_and_cpu_budget() -> None:
    budget = {"core_share": 0.05, "damage_seconds": 20.0, "news_seconds": 120.0}
    assert Pace(3600.0, 5.0, 5.0, **budget) == Pace()
