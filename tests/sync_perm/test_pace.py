"""
What passes may take of a core, whoever edits the tables.
"""

import random
from collections.abc import Callable

import pytest

from sync_perm.difference import Item
from sync_perm.pace import Pace, PassHistory
from tests.support.clocks import Clock

PASS_SECONDS = 4.0
FOE_SECONDS = 2.0
ROWS = [Item("role_grant", "", ("Viewer", "can_read", f"view {n}")) for n in range(250)]

Foe = Callable[[random.Random], Item]


class Hour:
    """A clock, passes that take all of a core while they run, and the rows that are missing."""

    def __init__(self, foe: Foe | None) -> None:
        self.clock = Clock()
        self.history = PassHistory(Pace(), clock=self.clock)
        self.history.settle(frozenset())
        self.missing: set[Item] = set()
        self.began: list[float] = []
        self._foe = foe
        self._random = random.Random(7)

    def run(self, seconds: float) -> None:
        until = self.clock.seconds + seconds
        while self.clock.seconds < until:
            if self._foe:
                self.missing.add(self._foe(self._random))
            if self.missing:
                self.pass_if_due()
            self.clock.seconds += FOE_SECONDS

    def pass_if_due(self) -> None:
        items = frozenset(self.missing)
        if self.clock.seconds >= max(self.history.next_at, self.history.affordable_at(items)):
            self.began.append(self.clock.seconds)
            self.clock.seconds += PASS_SECONDS
            self.history.note_pass(items, PASS_SECONDS)
            self.history.settle(frozenset())
            self.missing.clear()


@pytest.mark.parametrize(
    "foe", [lambda _: ROWS[0], lambda dice: dice.choice(ROWS[:3]), lambda dice: dice.choice(ROWS)]
)
def test_a_foe_that_edits_every_two_seconds_costs_a_tenth_of_a_core_at_most(foe: Foe) -> None:
    hour = Hour(foe)

    hour.run(3_600)

    assert 100 < len(hour.began) * PASS_SECONDS <= 360  # it is not given up either
    for start in range(0, 3_000, 600):  # in each ten minutes, too
        window = [at for at in hour.began if start <= at - 1_000 < start + 600]
        assert len(window) * PASS_SECONDS <= 60


def test_after_a_foe_the_last_damage_is_fixed_within_minutes() -> None:
    hour = Hour(lambda _: ROWS[0])
    hour.run(600)
    passes = len(hour.began)
    hour._foe = None
    hour.missing = {ROWS[0]}

    hour.run(180)

    assert (passes + 1, set()) == (len(hour.began), hour.missing)


def test_roles_and_dags_that_come_one_after_the_other_do_not_wait() -> None:
    hour = Hour(None)
    for number in range(20):
        hour.history.notice(frozenset({f"role {number}"}), is_fresh=False)
        hour.missing = {Item("role_grant", "", (f"role {number}", "can_read", "Website"))}
        hour.run(2 * FOE_SECONDS + PASS_SECONDS)

    assert 20 == len(hour.began)


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
