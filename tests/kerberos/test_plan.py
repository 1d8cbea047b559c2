"""
When a ticket is due, and why.
"""

import math
from dataclasses import replace
from typing import Any

import pytest

from kerberos_sidecar.formats.ccache import Ticket
from kerberos_sidecar.formats.principal import Principal, parse_principal
from kerberos_sidecar.plan import (
    Acquired,
    Cause,
    Failed,
    Found,
    cause_of,
    contest_wait,
    lockout_wait,
    retry_within,
    wait_after,
)
from kerberos_sidecar.source import Stamp

AIRFLOW, OTHER = parse_principal("airflow@EXAMPLE.COM"), parse_principal("other@EXAMPLE.COM")
NOW, AT = 1_700_000_000.0, 500.0
CAPITAL = parse_principal("Airflow@EXAMPLE.COM")
TICKET = Ticket(AIRFLOW, int(NOW), int(NOW) + 36_000, 0, (), 0.0)
KEYTAB: Stamp = (("/k", 1, 2, 3, 4),)
LAST = Acquired(TICKET, AT, KEYTAB, 3_600.0, "interval", NOW - AT)
THERE = Found(TICKET, NOW)
SHORT = Found(replace(TICKET, ends_at=int(NOW) + 300), NOW)
# From a KDC whose clock is four minutes slow, without kdc_timesync.
BEHIND = Found(replace(TICKET, starts_at=int(NOW) - 240, ends_at=int(NOW) + 60), NOW)


def cause(
    last: Acquired | None = LAST,
    found: Found = THERE,
    keytab: Stamp = KEYTAB,
    *,
    asked: bool = False,
    after: float = 0.0,
    set_clock: float = 0.0,
) -> Cause | None:
    return cause_of(
        last, found, keytab, is_asked_for=asked, at=AT + after, now=NOW + after + set_clock
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"after": 3_599}, None),
        ({"after": 3_600}, "interval"),
        ({"after": 3_600, "last": replace(LAST, cause="half_life")}, "half_life"),
        ({"last": None}, "start"),  # even if a valid ticket is published
        ({"last": None, "found": Found()}, "start"),
        ({"found": Found(problem="cannot be found")}, "missing"),
        ({"found": Found(None, NOW, "is not a version 4 ccache")}, "damaged"),
        ({"found": Found(TICKET, NOW, "has mode 0600")}, "damaged"),
        ({"found": Found(replace(TICKET, principal=OTHER), NOW)}, "taken"),
        ({"found": Found(replace(TICKET, principal=CAPITAL), NOW)}, None),  # as Active Directory
        ({"keytab": (("/k", 1, 2, 3, 5),)}, "keytab_changed"),
        ({"keytab": ()}, "keytab_changed"),
        ({"asked": True}, "asked"),
        ({"found": SHORT, "after": 149}, None),
        ({"found": SHORT, "after": 150}, "half_life"),  # after half of its own lifetime
        ({"found": BEHIND, "after": 29}, None),
        ({"found": BEHIND, "after": 30}, "half_life"),
        ({"found": Found(TICKET, NOW - 100_000), "after": 30}, None),  # by a file server's clock
        ({"set_clock": 60}, None),
        ({"set_clock": -60}, None),
        ({"set_clock": 61}, "clock_set"),
        ({"set_clock": -61}, "clock_set"),
        ({"set_clock": 600, "last": replace(LAST, zero_at=NOW + 600 - AT)}, None),
        ({"set_clock": -60, "after": 3_600}, "interval"),
    ],
)
def test_returns_why_a_ticket_is_due(given: dict[str, Any], expected: Cause | None) -> None:
    assert expected == cause(**given)


@pytest.mark.parametrize(
    ("life", "interval", "draw", "expected"),
    [
        (36_000, 3_600, 0.0, (3_600, "interval")),
        (3_600, 3_600, 0.0, (1_800, "half_life")),
        (16, 3_600, 1.0, (7.2, "half_life")),
        (16, 3_600, 0.0, (8, "half_life")),
        (36_000, 3_600, 0.5, (3_420, "interval")),
        (36_000, 1, 0.0, (1, "interval")),
    ],
)
def test_waits_for_the_interval_or_half_the_lifetime_or_up_to_a_tenth_less(
    life: int, interval: float, draw: float, expected: tuple[float, Cause]
) -> None:
    ticket = replace(TICKET, ends_at=int(NOW) + life)

    wait_seconds, why = wait_after(ticket, NOW, interval, draw)

    assert pytest.approx(expected[0]) == wait_seconds
    assert expected[1] == why


@pytest.mark.parametrize(
    ("found", "now", "wanted", "problem"),
    [
        (THERE, NOW, AIRFLOW, ""),
        (THERE, NOW + 35_999, AIRFLOW, ""),
        (THERE, NOW + 36_000, AIRFLOW, "contains a ticket that expired 0 s ago"),
        (THERE, NOW, OTHER, "belongs to airflow@EXAMPLE.COM, not to other@EXAMPLE.COM"),
        (THERE, NOW, parse_principal("Airflow@EXAMPLE.COM"), ""),
        (THERE, NOW, parse_principal("airflow"), ""),
        (THERE, NOW, None, ""),
        (Found(problem="cannot be found"), NOW, None, "cannot be found"),
    ],
)
def test_a_ccache_of_the_right_principal_is_valid_until_its_ticket_expires(
    found: Found, now: float, wanted: Principal | None, problem: str
) -> None:
    assert problem == found.problem_at(now, wanted)


@pytest.mark.parametrize(
    ("life", "expected"), [(36_000, 9_000), (8, 2), (3, 1), (0, math.inf), (-5, math.inf)]
)
def test_retries_within_a_quarter_of_the_remaining_lifetime(life: int, expected: float) -> None:
    assert expected == retry_within(replace(TICKET, ends_at=int(NOW) + life), NOW)
    assert math.inf == retry_within(None, NOW)


@pytest.mark.parametrize(
    ("keytab", "is_lost", "at", "expected"),
    [
        (KEYTAB, False, AT + 9, True),
        (KEYTAB, False, AT + 10, False),
        ((), False, AT, False),  # the keytab was changed
        (KEYTAB, True, AT, False),  # consumers have lost their ticket
    ],
)
def test_waits_after_a_failure_unless_the_keytab_or_ccache_has_changed(
    keytab: Stamp, is_lost: bool, at: float, expected: bool
) -> None:
    assert expected == Failed(KEYTAB, False, AT + 10).holds(keytab, is_lost=is_lost, at=at)
    assert Failed(keytab, True, at + 1).holds(keytab, is_lost=True, at=at)


class Account:
    """An account under a policy of five failures in half an hour, counted as MIT's KDC does."""

    def __init__(self) -> None:
        self.failures, self.last_at, self.most = 0, float("-inf"), 0

    def refuse(self, now: float) -> None:
        is_counted = now - self.last_at <= 1800 + 30  # its clock may be slow by 1 s per minute
        self.failures = self.failures + 1 if is_counted else 1
        self.last_at, self.most = now, max(self.most, self.failures)


@pytest.mark.parametrize("life", [None, 300, 3_600, 36_000], ids=str)
@pytest.mark.parametrize("look", [1, 7, 60, 601])
def test_retries_wrong_keys_all_day_without_locking_an_account(life: int | None, look: int) -> None:
    account, refused_at = Account(), list[float]()
    ends_at = None if life is None else NOW + life
    for now in range(int(NOW), int(NOW) + 86_400, look):
        if lockout_wait(refused_at, now, 1_800, ends_at) == 0:
            account.refuse(now)
            refused_at.append(now)

    assert account.most <= 3
    assert len(refused_at) >= 2 * 86_400 // (1_860 + 3 * look) - 2


def test_allows_two_tries_per_window_and_one_more_before_the_ticket_expires() -> None:
    ends_at = NOW + 3_000

    assert 0 == lockout_wait([], NOW, 1_800, ends_at)
    assert 0 == lockout_wait([NOW - 1], NOW, 1_800, ends_at)
    two = [NOW - 11, NOW - 10]
    assert 1_850 == lockout_wait(two, NOW, 1_800, ends_at)
    assert 0 == lockout_wait(two, NOW + 1_850, 1_800, ends_at)
    assert 400 == lockout_wait(two, NOW, 1_800, NOW + 700)
    assert 0 == lockout_wait(two, NOW, 1_800, NOW + 300)
    assert 1_850 == lockout_wait(two, NOW, 1_800, NOW - 1), "it has ended"
    assert 1_855 == lockout_wait([*two, NOW - 5], NOW, 1_800, NOW + 100)
    assert 0 == lockout_wait([*two, NOW - 5], NOW, 0, None)


def test_retakes_a_ccache_immediately_then_less_and_less_often() -> None:
    retaken_at: list[float] = []
    for now in range(3_600):
        if contest_wait(retaken_at, now) == 0:
            retaken_at.append(now)

    assert [0, 15, 45, 105, 225, 465, 945, 1_545, 2_145, 2_745, 3_345] == retaken_at
    assert 0 == contest_wait(retaken_at, 7_200)
