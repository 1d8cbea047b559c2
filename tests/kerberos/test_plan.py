"""
What is to be done for a principal, in each situation; when again.
"""

from dataclasses import replace
from typing import Any

import pytest

from kerberos_sidecar import plan
from kerberos_sidecar.formats import Principal, Ticket, parse_principal
from kerberos_sidecar.plan import (
    Acquired,
    Cause,
    Clock,
    Done,
    Failed,
    Found,
    Plan,
    State,
    Wait,
    Work,
)
from kerberos_sidecar.reasons import failure
from tests import Facts

AIRFLOW = parse_principal("airflow@EXAMPLE.COM")
OTHER = parse_principal("other@EXAMPLE.COM")
NOW = 1_700_000_000.0
AT = 500.0
CAPITAL = parse_principal("Airflow@EXAMPLE.COM")
TICKET = Ticket(AIRFLOW, int(NOW), int(NOW) + 36_000, 0.0)
KEYTAB = "a stamp"
LAST = Acquired(TICKET, AT, KEYTAB, 3_600.0, "interval", NOW - AT)
THERE = Found(TICKET, NOW)
SHORT = Found(replace(TICKET, ends_at=int(NOW) + 300), NOW)
# From a KDC whose clock is four minutes slow, without kdc_timesync.
BEHIND = Found(replace(TICKET, starts_at=int(NOW) - 240, ends_at=int(NOW) + 60), NOW)
DAMAGED = Found(None, NOW, "is not a version 4 ccache")


def failed(found: Found, keytab: str = KEYTAB, reason: str = "kdc_hung") -> Failed:
    """It was tried with these, and is tried again after a minute."""
    return Failed(failure(reason, ""), 1, plan.Tried(keytab, found.problem), AT + 60)


def decided(
    last: Acquired | None = LAST,
    found: Found = THERE,
    keytab: str = KEYTAB,
    *,
    after: float = 0.0,
    set_clock: float = 0.0,
    **state: Any,
) -> Plan:
    return plan.decide(
        State(last, **state), found, keytab, Clock(AT + after, NOW + after + set_clock)
    )


STAYS = Done(AT + 3_600)
SITUATIONS: dict[Plan, list[Facts]] = {
    STAYS: [
        {},
        {"after": 3_599},
        # as Active Directory
        {"found": Found(replace(TICKET, principal=CAPITAL), NOW)},
        {"found": SHORT, "after": 149},
        {"found": BEHIND, "after": 29},
        # by a file server's clock
        {"found": Found(TICKET, NOW - 100_000), "after": 30},
        {"set_clock": 60},
        {"set_clock": -60},
        {"set_clock": 600, "last": replace(LAST, zero_at=NOW + 600 - AT)},
    ],
    Work("start"): [
        {"last": None},  # even if a valid ticket is published
        {"last": None, "failed": failed(THERE, "another")},
    ],
    Work("missing"): [{"found": Found(problem="cannot be found")}],
    Work("damaged"): [
        {"found": DAMAGED},
        {"found": Found(TICKET, NOW, "has mode 0600")},
        # It lacked something else, or its time has come.
        {"found": DAMAGED, "failed": failed(THERE)},
        {"found": DAMAGED, "failed": failed(DAMAGED), "after": 60},
    ],
    Work("taken"): [{"found": Found(replace(TICKET, principal=OTHER), NOW)}],
    Work("asked"): [{"is_asked_for": True}],
    Work("keytab_changed"): [{"keytab": "another"}],
    Work("clock_set"): [{"set_clock": 61}, {"set_clock": -61}],
    Work("interval"): [{"after": 3_600}],
    Work("half_life"): [
        {"after": 3_600, "last": replace(LAST, cause="half_life")},
        {"found": SHORT, "after": 150},  # of its own lifetime
        {"found": BEHIND, "after": 30},
    ],
    Wait(AT + 60): [
        {"found": DAMAGED, "failed": failed(DAMAGED), "after": 59},
        {"last": None, "failed": failed(THERE)},
        {"last": None, "failed": failed(DAMAGED, reason="keytab_stale")},
    ],
    # Another process has published a good one: a cycle notes that at once.
    Done(AT + 5): [{"failed": failed(DAMAGED), "after": 5}],
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [(given, one) for one, those in SITUATIONS.items() for given in those],
)
def test_decides_for_each_situation(given: Facts, expected: Plan) -> None:
    found = decided(**given)

    assert (type(expected), expected) == (type(found), found)


@pytest.mark.parametrize(
    ("life", "interval", "draw", "expected"),
    [
        (36_000, 3_600, 0.0, (3_600, "interval")),
        (3_600, 3_600, 0.0, (1_800, "half_life")),
        (16, 3_600, 1.0, (7.2, "half_life")),
    ],
)
def test_waits_for_the_interval_or_half_the_lifetime_or_up_to_a_tenth_less(
    life: int, interval: float, draw: float, expected: tuple[float, Cause]
) -> None:
    wait_seconds, why = plan.wait_after(
        replace(TICKET, ends_at=int(NOW) + life), NOW, interval, draw
    )

    assert pytest.approx(expected[0]) == wait_seconds
    assert expected[1] == why


@pytest.mark.parametrize(
    ("found", "now", "wanted", "problem"),
    [
        (THERE, NOW + 35_999, AIRFLOW, ""),
        (THERE, NOW + 36_000, AIRFLOW, "contains a ticket that expired 0 s ago"),
        (THERE, NOW, OTHER, "belongs to airflow@EXAMPLE.COM, not to other@EXAMPLE.COM"),
        (THERE, NOW, CAPITAL, ""),
    ],
)
def test_a_ccache_of_the_right_principal_is_valid_until_its_ticket_expires(
    found: Found, now: float, wanted: Principal | None, problem: str
) -> None:
    assert problem == found.why_unusable_at(now, wanted)
