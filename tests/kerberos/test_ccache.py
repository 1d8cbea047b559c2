"""
Reading a ccache, and assembling one without the refresh hint.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerberos_sidecar.ccache import read_ticket, reduce
from tests.support.kerberos.formats import KEY, ccache, config, tgt

START, END = 1_700_000_000, 1_700_036_000


def test_reads_the_ticket() -> None:
    content = ccache(
        config("fast_avail", b"yes"), tgt(END, renew_until=END + 9), config("pa", b"2")
    )

    ticket = read_ticket(content)

    assert "airflow@EXAMPLE.COM" == str(ticket.principal)
    assert (START, END) == (ticket.starts_at, ticket.ends_at)
    assert (END + 9, 36_000) == (ticket.renew_until, ticket.lifetime_seconds)
    assert 0 == ticket.clock_offset_seconds


@pytest.mark.parametrize("offset_seconds", [600, -600])
def test_converts_times_to_the_local_clock_whatever_the_kdcs_clock(offset_seconds: int) -> None:
    ticket = read_ticket(ccache(tgt(END, renew_until=END), offset_seconds=offset_seconds))

    assert offset_seconds == ticket.clock_offset_seconds
    assert START - offset_seconds == ticket.starts_at
    assert (END - offset_seconds, END - offset_seconds) == (ticket.ends_at, ticket.renew_until)
    assert 0 == read_ticket(ccache(tgt(END), offset_seconds=offset_seconds)).renew_until


@pytest.mark.parametrize(
    "content",
    [
        ccache(),
        ccache(config("refresh_time", b"1")),
        ccache(tgt(END, name="other")),
        ccache(tgt(END, realm="OTHER.COM")),
    ],
    ids=["nothing", "notes", "another's", "another realm's"],
)
def test_refuses_a_ccache_without_a_tgt_of_its_own_principal(content: bytes) -> None:
    with pytest.raises(ValueError, match="contains no ticket-granting ticket for airflow@EXAMPLE"):
        read_ticket(content)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not a version 4 ccache"),
        (b"\5\3" + ccache(tgt(END))[2:], "is not a version 4 ccache"),
        (b"#!/bin/sh", "is not a version 4 ccache"),
        (ccache(tgt(END))[:-1], "ends in the middle"),
        (ccache(tgt(END))[:30], "ends in the middle"),
        (b"\5\4", "ends in the middle"),
        (bytes((5, 4)) + bytes(2_000_000), "is not a version 4 ccache"),
    ],
)
def test_refuses_content_that_is_not_a_ccache(content: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_ticket(content)


@pytest.mark.parametrize(
    "name", ["air\x1b[2J", "air\ufffdow", 1_000 * "abc"], ids=["control", "no UTF-8", "overlong"]
)
def test_refuses_a_name_that_is_not_text_without_quoting_it(name: str) -> None:
    """A consumer can write it, or a wrong length can make bytes of a key part of it."""
    with pytest.raises(ValueError, match=r"belongs to a principal whose name is not text$"):
        read_ticket(ccache(tgt(END, name=name), name=name))


def test_detects_every_truncation_that_does_not_leave_a_valid_ccache() -> None:
    content = ccache(tgt(END), config("refresh_time", b"1700018000"))
    whole = len(ccache(tgt(END)))

    for size in range(len(content)):
        if size == whole:
            assert read_ticket(content[:size]) == read_ticket(content)
        else:
            with pytest.raises(ValueError, match=r"is not|belongs to|ends in|contains no"):
                read_ticket(content[:size])


@given(st.data())
def test_damaged_content_raises_only_value_errors_that_reveal_no_key(data: st.DataObject) -> None:
    content = bytearray(ccache(tgt(END), config("refresh_time", b"1")))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    said = ""
    try:
        read_ticket(bytes(content))
    except ValueError as error:
        said = str(error)

    assert KEY[:8].decode("latin-1") not in said


@pytest.mark.parametrize("offset_seconds", [-7, 0, 600])
def test_reduces_a_ccache_to_its_ticket(offset_seconds: int) -> None:
    """Without `refresh_time`, readers add nothing to it."""
    entries = (config("fast_avail", b"yes"), tgt(END), config("refresh_time", b"1700018000"))

    assert ccache(tgt(END), offset_seconds=offset_seconds) == reduce(
        ccache(*entries, offset_seconds=offset_seconds)
    )
