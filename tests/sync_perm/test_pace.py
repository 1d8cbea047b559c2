"""
What passes may take of a core, whoever edits the tables.
"""

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from sync_perm.difference import Item
from sync_perm.pace import Pace, PassHistory
from tests.support.clocks import Clock

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
    """A clock, passes that take all of a core while they run, and the rows that are missing."""

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

    def lose(self, item: Item) -> None:
        self.missing.add(item)
        self.history.notice(frozenset({str(item.row[0])}), is_fresh=False)

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
def test_a_foe_that_edits_every_two_seconds_for_a_day_costs_what_is_promised(
    foe: Foe, pass_seconds: float
) -> None:
    site = Site(foe, pass_seconds)

    site.run(24 * HOUR_SECONDS)

    for since in site.began:
        hour = [at for at in site.began if since <= at < since + HOUR_SECONDS]
        assert len(hour) * pass_seconds <= HOUR_SECONDS / 10
    assert len(site.began) * pass_seconds <= 24 * HOUR_SECONDS / 20 + 120 + pass_seconds
    assert site.history.debt_seconds <= 120 + pass_seconds
    longest = max(900, 20 * pass_seconds) + pass_seconds + 2 * FOE_SECONDS
    assert max(after - before for before, after in pairwise(site.began)) <= longest


def test_after_hours_of_new_dags_a_row_that_is_lost_again_and_again_waits_a_quarter_of_one() -> (
    None
):
    site = Site(FOES["new roles"], 24.0)
    site.run(6 * HOUR_SECONDS)
    site._foe = FOES["one row"]
    passes = len(site.began)

    site.run(HOUR_SECONDS)

    assert max(after - before for before, after in pairwise(site.began[passes - 1 :])) <= 930


def test_a_pass_of_any_length_is_paid_before_the_next() -> None:
    pass_seconds = 1_000.0
    site = Site(FOES["one row"], pass_seconds)

    site.run(24 * HOUR_SECONDS)

    assert len(site.began) * pass_seconds <= 24 * HOUR_SECONDS / 20 + 120 + pass_seconds


def test_after_a_foe_the_last_damage_is_fixed_within_minutes() -> None:
    site = Site(FOES["one row"])
    site.run(600)
    passes = len(site.began)
    site._foe = None
    site.missing = {ROWS[0]}

    site.run(180)

    assert (passes + 1, set()) == (len(site.began), site.missing)


def test_roles_and_dags_that_come_one_after_the_other_do_not_wait() -> None:
    site = Site(None)
    for number in range(20):
        site.lose(Item("role_grant", "", (f"role {number}", "can_read", "Website")))
        site.run(2 * FOE_SECONDS + PASS_SECONDS)

    assert 20 == len(site.began)


def test_more_rows_than_a_person_edits_are_not_remembered() -> None:
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


def test_the_shipped_waits() -> None:
    budget = {"core_share": 0.05, "damage_seconds": 20.0, "news_seconds": 120.0}
    assert Pace(3600.0, 5.0, 5.0, **budget) == Pace()
