"""
Names of principals, as MIT Kerberos writes them; reading a ccache, and reducing it to its ticket.
"""

import socket
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerberos_sidecar.formats import Principal, parse_principal, read_ticket, reduce
from kerberos_sidecar.keytab import parse_keytab
from kerberos_sidecar.settings import principal
from tests.support.kerberos.formats import KEY, ccache, config, entry, keytab, tgt

NAMES = st.text(st.characters(blacklist_categories=["Z", "C"]), min_size=1)
START, END = 1_700_000_000, 1_700_036_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("airflow", Principal(("airflow",))),
        ("HTTP/web.example.com@R", Principal(("HTTP", "web.example.com"), "R")),
        (r"a\@b\/c@R", Principal(("a@b/c",), "R")),
        (r"a\\b@R", Principal(("a\\b",), "R")),
    ],
)
def test_parses_and_formats_a_principal(text: str, expected: Principal) -> None:
    assert expected == parse_principal(text)
    assert text == str(expected)


@pytest.mark.parametrize("text", ["", "@R", "a@", "a/@R", "/a@R", "a@b@R", "a b@R", "a\0@R", "a\\"])
def test_refuses_text_that_is_not_a_principal(text: str) -> None:
    with pytest.raises(ValueError, match="is not a principal such as"):
        parse_principal(text)


@given(st.lists(NAMES, min_size=1, max_size=3), NAMES)
def test_every_name_round_trips(components: list[str], realm: str) -> None:
    name = Principal(tuple(components), realm)

    assert name == parse_principal(str(name))


def test_names_match_without_a_realm_or_in_another_case_and_expand_the_host() -> None:
    found = parse_principal("airflow@EXAMPLE.COM")

    assert found.is_named(parse_principal("airflow")) and found.is_named(found)
    assert not found.is_named(parse_principal("airflow@OTHER.COM"))
    assert not found.is_named(parse_principal("airflow/host"))
    assert found.resembles(parse_principal("Airflow@example.com"))
    assert not found.resembles(parse_principal("b@EXAMPLE.COM"))
    assert f"airflow/{socket.getfqdn()}@R" == str(principal("airflow/_HOST@R"))


@pytest.mark.parametrize("offset_seconds", [0, 600, -600])
def test_reads_times_by_the_local_clock_whatever_the_kdcs_clock(offset_seconds: int) -> None:
    entries = config("fast_avail", b"yes"), tgt(END, renew_until=END + 9), config("pa", b"2")

    ticket = read_ticket(ccache(*entries, offset_seconds=offset_seconds))

    assert "airflow@EXAMPLE.COM" == str(ticket.principal)
    assert (offset_seconds, 36_000) == (ticket.clock_offset_seconds, ticket.lifetime_seconds)
    times = (ticket.starts_at, ticket.ends_at, ticket.renew_until)
    assert (START - offset_seconds, END - offset_seconds, END + 9 - offset_seconds) == times
    assert 0 == read_ticket(ccache(tgt(END), offset_seconds=offset_seconds)).renew_until


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (ccache(), "contains no ticket-granting ticket for airflow@EXAMPLE"),
        (ccache(config("refresh_time", b"1")), "contains no ticket-granting ticket"),
        (ccache(tgt(END, name="other")), "contains no ticket-granting ticket"),
        (ccache(tgt(END, realm="OTHER.COM")), "contains no ticket-granting ticket"),
        (b"", "is not a version 4 ccache"),
        (b"\5\3" + ccache(tgt(END))[2:], "is not a version 4 ccache"),
        (bytes((5, 4)) + bytes(2_000_000), "is not a version 4 ccache"),
        (b"\5\4", "ends in the middle"),
        # A consumer can write such names, or a wrong length can make bytes of a key part of it.
        *((ccache(tgt(END), name=name), r"name is not text$") for name in ("a\x1b[2J", "a" * 3000)),
    ],
)
def test_refuses_what_contains_no_tgt_of_its_principal(content: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_ticket(content)


@pytest.mark.parametrize(
    ("parse", "whole"),
    [
        (read_ticket, ccache(tgt(END), config("refresh_time", b"1"))),
        (parse_keytab, keytab(entry(key=KEY), entry("other"))),
    ],
    ids=["ccache", "keytab"],
)
@given(data=st.data())
def test_damaged_content_raises_only_known_errors_that_reveal_no_key(
    parse: Callable[[bytes], object], whole: bytes, data: st.DataObject
) -> None:
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    said = ""
    try:
        parse(bytes(content[: data.draw(st.integers(0, len(content)))]))
    except (ValueError, EOFError) as error:
        said = str(error)

    assert KEY[:8].decode("latin-1") not in said


@pytest.mark.parametrize("offset_seconds", [-7, 0, 600])
def test_reduces_a_ccache_to_its_ticket(offset_seconds: int) -> None:
    """Without `refresh_time`, readers add nothing to it."""
    entries = (config("fast_avail", b"yes"), tgt(END), config("refresh_time", b"1700018000"))

    found, _ = reduce(ccache(*entries, offset_seconds=offset_seconds))

    assert ccache(tgt(END), offset_seconds=offset_seconds) == found
