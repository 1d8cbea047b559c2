"""
When a ticket is due, and why.
"""

from dataclasses import replace
from typing import Any

import pytest

from kerberos_sidecar.formats.ccache import Ticket
from kerberos_sidecar.formats.principal import Principal, parse_principal
from kerberos_sidecar.plan import Acquired, Cause, Found, cause_of, retry_within, wait_after
from kerberos_sidecar.source import Stamp

AIRFLOW, OTHER = parse_principal("airflow@EXAMPLE.COM"), parse_principal("other@EXAMPLE.COM")
NOW, AT = 1_700_000_000.0, 500.0
TICKET = Ticket(AIRFLOW, int(NOW), int(NOW) + 36_000, 0, (), 0.0)
KEYTAB: Stamp = (("/k", 1, 2, 3, 4),)
LAST = Acquired(TICKET, AT, KEYTAB, 3_600.0, "interval")
THERE = Found(TICKET, NOW)
SHORT = Found(replace(TICKET, ends_at=int(NOW) + 300), NOW)
# From a KDC that is four minutes behind, without kdc_timesync.
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
        ({"last": None}, "start"),  # even where a valid one is there
        ({"last": None, "found": Found()}, "start"),
        ({"found": Found(problem="is not there")}, "missing"),
        ({"found": Found(None, NOW, "is not a ccache")}, "damaged"),
        ({"found": Found(TICKET, NOW, "has mode 0600")}, "damaged"),
        ({"found": Found(replace(TICKET, principal=OTHER), NOW)}, "damaged"),
        ({"keytab": (("/k", 1, 2, 3, 5),)}, "keytab_changed"),
        ({"keytab": ()}, "keytab_changed"),
        ({"asked": True}, "asked"),
        ({"found": SHORT, "after": 149}, None),
        ({"found": SHORT, "after": 150}, "half_life"),  # at its own half
        ({"set_clock": 20_000}, "half_life"),
        ({"found": BEHIND, "after": 29}, None),
        ({"found": BEHIND, "after": 30}, "half_life"),
        ({"set_clock": -86_400, "after": 3_600}, "interval"),
    ],
)
def test_a_ticket_is_due_for_its_cause(given: dict[str, Any], expected: Cause | None) -> None:
    assert expected == cause(**given)


@pytest.mark.parametrize(
    ("life", "interval", "jitter", "draw", "expected"),
    [
        (36_000, 3_600, 0.0, 1.0, (3_600, "interval")),
        (3_600, 3_600, 0.0, 1.0, (1_800, "half_life")),
        (16, 3_600, 0.0, 1.0, (8, "half_life")),
        (16, 3_600, None, 1.0, (7.2, "half_life")),
        (16, 3_600, None, 0.0, (8, "half_life")),
        (36_000, 3_600, None, 0.5, (3_420, "interval")),
        (36_000, 3_600, 60.0, 1.0, (3_540, "interval")),
        (16, 3_600, 60.0, 1.0, (4, "half_life")),
        (36_000, 1, 0.0, 0.0, (1, "interval")),
    ],
)
def test_waits_for_the_interval_or_half_of_the_life(
    life: int, interval: float, jitter: float | None, draw: float, expected: tuple[float, Cause]
) -> None:
    """The jitter only shortens, and by no more than half."""
    ticket = replace(TICKET, ends_at=int(NOW) + life)

    wait_seconds, why = wait_after(ticket, NOW, interval, jitter, draw)

    assert pytest.approx(expected[0]) == wait_seconds
    assert expected[1] == why


@pytest.mark.parametrize(
    ("found", "now", "wanted", "problem"),
    [
        (THERE, NOW, AIRFLOW, ""),
        (THERE, NOW + 35_999, AIRFLOW, ""),
        (THERE, NOW + 36_000, AIRFLOW, "holds a ticket that ended 0 s ago"),
        (THERE, NOW, OTHER, "is of airflow@EXAMPLE.COM, not of other@EXAMPLE.COM"),
        (THERE, NOW, parse_principal("Airflow@EXAMPLE.COM"), ""),
        (THERE, NOW, parse_principal("airflow"), ""),
        (THERE, NOW, None, ""),
        (Found(problem="is not there"), NOW, None, "is not there"),
    ],
)
def test_what_is_found_is_usable_until_its_last_second_by_its_principal(
    found: Found, now: float, wanted: Principal | None, problem: str
) -> None:
    assert problem == found.problem_at(now, wanted)


@pytest.mark.parametrize(
    ("lives", "expected"),
    [([], None), ([36_000], 9_000), ([36_000, 8], 2), ([3], 1), ([0, -5], None), ([-5, 40], 10)],
)
def test_a_failure_is_tried_again_while_a_quarter_is_left(
    lives: list[int], expected: float | None
) -> None:
    found = [Found(replace(TICKET, ends_at=int(NOW) + life), NOW) for life in lives]

    assert expected == retry_within([Found(), *found], NOW)
