"""
When a ticket is due, and why.
"""

from dataclasses import replace

import pytest

from kerberos_sidecar.ccache import Ticket
from kerberos_sidecar.plan import Acquired, Cause, Found, cause_of, retry_within, wait_after
from kerberos_sidecar.principal import parse_principal
from kerberos_sidecar.source import Stamp

AIRFLOW = parse_principal("airflow@EXAMPLE.COM")
NOW, AT = 1_700_000_000.0, 500.0
TICKET = Ticket(AIRFLOW, int(NOW), int(NOW) + 36_000, 0, (), 0.0)
KEYTAB: Stamp = (("/k", 1, 2, 3, 4),)
LAST = Acquired(TICKET, AT, KEYTAB, 3_600.0, "interval")
THERE = Found(TICKET, NOW)


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


def test_nothing_is_due_while_all_is_well() -> None:
    assert cause() is None
    assert cause(after=3_599) is None


def test_the_first_is_due_even_where_a_valid_one_is_there() -> None:
    assert "start" == cause(last=None)
    assert "start" == cause(last=None, found=Found())


def test_what_somebody_removed_or_damaged_is_due() -> None:
    other = replace(TICKET, principal=parse_principal("other@EXAMPLE.COM"))

    assert "missing" == cause(found=Found(problem="is not there"))
    assert "damaged" == cause(found=Found(None, NOW, "is no ccache"))
    assert "damaged" == cause(found=Found(other, NOW))


def test_a_changed_or_vanished_keytab_is_due() -> None:
    assert "keytab_changed" == cause(keytab=(("/k", 1, 2, 3, 5),))
    assert "keytab_changed" == cause(keytab=())


def test_what_a_person_asks_for_is_due() -> None:
    assert "asked" == cause(asked=True)


def test_is_due_after_its_time_and_says_which() -> None:
    assert "interval" == cause(after=3_600)
    assert "half_life" == cause(last=replace(LAST, cause="half_life"), after=3_600)


def test_somebody_elses_with_less_life_in_it_is_due_at_its_own_half() -> None:
    short = Found(replace(TICKET, ends_at=int(NOW) + 300), NOW)

    assert cause(found=short, after=149) is None
    assert "half_life" == cause(found=short, after=150)


def test_a_clock_that_is_set_forward_makes_it_due() -> None:
    assert "half_life" == cause(set_clock=20_000)


def test_a_clock_that_is_set_back_does_not_put_it_off() -> None:
    assert "interval" == cause(after=3_600, set_clock=-86_400)


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
    """
    The jitter only shortens, and by no more than half.
    """
    ticket = replace(TICKET, ends_at=int(NOW) + life)

    wait_seconds, why = wait_after(ticket, NOW, interval, jitter, draw)

    assert expected == (pytest.approx(wait_seconds), why)


def test_what_is_found_is_usable_until_its_last_second() -> None:
    assert "" == THERE.problem_at(NOW, AIRFLOW)
    assert "" == THERE.problem_at(NOW + 35_999, AIRFLOW)
    assert "holds a ticket that ended 0 s ago" == THERE.problem_at(NOW + 36_000, AIRFLOW)


def test_what_is_found_must_be_of_the_right_principal() -> None:
    other = parse_principal("other@EXAMPLE.COM")

    assert "is of airflow@EXAMPLE.COM, not of other@EXAMPLE.COM" == THERE.problem_at(NOW, other)
    assert "" == THERE.problem_at(NOW, None)
    assert "" == THERE.problem_at(NOW, parse_principal("airflow"))


def test_what_is_not_found_says_why() -> None:
    assert "is not there" == Found(problem="is not there").problem_at(NOW, None)


@pytest.mark.parametrize(
    ("lives", "expected"),
    [
        ([], None),
        ([36_000], 9_000),
        ([36_000, 8], 2),
        ([3], 1),
        ([0, -5], None),
        ([-5, 40], 10),
    ],
)
def test_a_failure_is_tried_again_while_a_quarter_is_left(
    lives: list[int], expected: float | None
) -> None:
    found = [Found(replace(TICKET, ends_at=int(NOW) + life), NOW) for life in lives]

    assert expected == retry_within([Found(), *found], NOW)
