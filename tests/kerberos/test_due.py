"""
When a ticket is due, and why; reasons of codes.
"""

import math
import time
from dataclasses import replace
from typing import Any

import pytest

from kerberos_sidecar import due
from kerberos_sidecar.account import Account, State
from kerberos_sidecar.due import Acquired, Cause, Failed, Found
from kerberos_sidecar.formats import Principal, Ticket, parse_principal
from kerberos_sidecar.keytab import Key, Keytab
from kerberos_sidecar.reasons import failure
from kerberos_sidecar.settings import load_settings

AIRFLOW, OTHER = (
    parse_principal("airflow@EXAMPLE.COM"),
    parse_principal("other@EXAMPLE.COM"),
)
NOW, AT = 1_700_000_000.0, 500.0
CAPITAL = parse_principal("Airflow@EXAMPLE.COM")
TICKET = Ticket(AIRFLOW, int(NOW), int(NOW) + 36_000, 0, 0.0)
KEYTAB = "airflow@EXAMPLE.COM 2/18/0123"
LAST = Acquired(TICKET, AT, KEYTAB, 3_600.0, "interval", NOW - AT)
THERE = Found(TICKET, NOW)
SHORT = Found(replace(TICKET, ends_at=int(NOW) + 300), NOW)
# From a KDC whose clock is four minutes slow, without kdc_timesync.
BEHIND = Found(replace(TICKET, starts_at=int(NOW) - 240, ends_at=int(NOW) + 60), NOW)


def cause(
    last: Acquired | None = LAST,
    found: Found = THERE,
    keytab: str = KEYTAB,
    *,
    asked: bool = False,
    after: float = 0.0,
    set_clock: float = 0.0,
) -> Cause | None:
    return due.cause_of(
        last,
        found,
        keytab,
        is_asked_for=asked,
        at=AT + after,
        now=NOW + after + set_clock,
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"after": 3_599}, None),
        ({"after": 3_600}, "interval"),
        ({"after": 3_600, "last": replace(LAST, cause="half_life")}, "half_life"),
        ({"last": None}, "start"),  # even if a valid ticket is published
        ({"found": Found(problem="cannot be found")}, "missing"),
        ({"found": Found(None, NOW, "is not a version 4 ccache")}, "damaged"),
        ({"found": Found(TICKET, NOW, "has mode 0600")}, "damaged"),
        ({"found": Found(replace(TICKET, principal=OTHER), NOW)}, "taken"),
        # as Active Directory
        ({"found": Found(replace(TICKET, principal=CAPITAL), NOW)}, None),
        ({"keytab": "airflow@EXAMPLE.COM 3/18/4567"}, "keytab_changed"),
        ({"keytab": "the keytab /k does not exist"}, "keytab_changed"),
        ({"asked": True}, "asked"),
        ({"found": SHORT, "after": 149}, None),
        ({"found": SHORT, "after": 150}, "half_life"),  # after half of its own lifetime
        ({"found": BEHIND, "after": 29}, None),
        ({"found": BEHIND, "after": 30}, "half_life"),
        # by a file server's clock
        ({"found": Found(TICKET, NOW - 100_000), "after": 30}, None),
        ({"set_clock": 60}, None),
        ({"set_clock": -60}, None),
        ({"set_clock": 61}, "clock_set"),
        ({"set_clock": -61}, "clock_set"),
        ({"set_clock": 600, "last": replace(LAST, zero_at=NOW + 600 - AT)}, None),
        ({"set_clock": -60, "after": 3_600}, "interval"),
    ],
)
def test_returns_why_a_ticket_is_due(
    given: dict[str, Any], expected: Cause | None
) -> None:
    assert expected == cause(**given)


@pytest.mark.parametrize(
    ("life", "interval", "draw", "expected"),
    [
        (36_000, 3_600, 0.0, (3_600, "interval")),
        (3_600, 3_600, 0.0, (1_800, "half_life")),
        (16, 3_600, 1.0, (7.2, "half_life")),
        (16, 3_600, 0.0, (8, "half_life")),
        (36_000, 3_600, 0.5, (3_420, "interval")),
    ],
)
def test_waits_for_the_interval_or_half_the_lifetime_or_up_to_a_tenth_less(
    life: int, interval: float, draw: float, expected: tuple[float, Cause]
) -> None:
    ticket = replace(TICKET, ends_at=int(NOW) + life)

    wait_seconds, why = due.wait_after(ticket, NOW, interval, draw)

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
        (Found(problem="cannot be found"), NOW, None, "cannot be found"),
    ],
)
def test_a_ccache_of_the_right_principal_is_valid_until_its_ticket_expires(
    found: Found, now: float, wanted: Principal | None, problem: str
) -> None:
    assert problem == found.problem_at(now, wanted)


@pytest.mark.parametrize(
    ("life", "longest"),
    [(36_000, 9_000), (3, 1), (0, math.inf), (-5, math.inf)],
)
def test_a_retry_waits_for_a_quarter_of_the_life_at_most(
    life: int, longest: float
) -> None:
    ticket = replace(TICKET, ends_at=int(NOW) + life)

    assert longest == due.retry_within(ticket, NOW)


def test_what_others_swap_in_a_loop_is_tried_with_a_floor_but_sighup_at_once() -> None:
    settings, at = load_settings({})[0], time.monotonic()
    one = Account(settings.entries[0], settings)
    last = replace(LAST, at=at, zero_at=time.time() - at)
    one.keytab, one.found = Keytab("/k", AIRFLOW, (Key(AIRFLOW, 3, 18),)), THERE

    refused = Failed(failure("keytab_stale", "refused"), 1, "another", at + 60)
    same = replace(refused, situation=one.situation)
    for failed, seconds in ((None, 1), (refused, 1), (same, 60)):
        one.state = State(last, failed, tried_at=at)
        assert ("keytab_changed", at + seconds) == (one.cause(), one.next_at)
        one.ask()
        assert one.next_at <= at
