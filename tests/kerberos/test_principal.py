"""
Names of principals, as MIT Kerberos writes them.
"""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerberos_sidecar.principal import Principal, parse_principal
from kerberos_sidecar.settings import principal

NAMES = st.text(st.characters(blacklist_categories=["Z", "C"]), min_size=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("airflow", Principal(("airflow",))),
        ("airflow@EXAMPLE.COM", Principal(("airflow",), "EXAMPLE.COM")),
        ("HTTP/web.example.com@R", Principal(("HTTP", "web.example.com"), "R")),
        (r"a\@b\/c@R", Principal(("a@b/c",), "R")),
        (r"a\\b@R", Principal(("a\\b",), "R")),
    ],
)
def test_parses_and_formats_a_principal(text: str, expected: Principal) -> None:
    assert expected == parse_principal(text)
    assert text == str(expected)


@pytest.mark.parametrize(
    "text", ["", "@R", "a@", "a/@R", "/a@R", "a@b@R", "a b@R", "a\0@R", "a\\", "a@R\n"]
)
def test_refuses_text_that_is_not_a_principal(text: str) -> None:
    with pytest.raises(ValueError, match="is not a principal such as"):
        parse_principal(text)


@given(st.lists(NAMES, min_size=1, max_size=3), NAMES)
def test_every_name_round_trips(components: list[str], realm: str) -> None:
    name = Principal(tuple(components), realm)

    assert name == parse_principal(str(name))


def test_expands_host_to_the_name_of_this_host() -> None:
    assert f"airflow/{socket.getfqdn()}@R" == str(principal("airflow/_HOST@R"))


def test_a_principal_without_realm_matches_any_realm_but_no_other_name() -> None:
    found = parse_principal("airflow@EXAMPLE.COM")

    assert found.is_named(parse_principal("airflow"))
    assert found.is_named(found)
    assert not found.is_named(parse_principal("airflow@OTHER.COM"))
    assert not found.is_named(parse_principal("airflow/host"))
    assert found.resembles(parse_principal("Airflow@example.com"))  # whatever the case
    assert not found.resembles(parse_principal("b@EXAMPLE.COM"))
