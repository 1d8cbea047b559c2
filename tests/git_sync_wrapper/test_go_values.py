"""
Values as git-sync reads them.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_sync_wrapper import go_values
from git_sync_wrapper.go_values import (
    GivenCredential,
    boolean,
    credentials,
    duration,
    git_configs,
    whole,
    write_git_configs,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("1m30s", 90),
        ("1.5h", 5400),
        ("500ms", 0.5),
        ("0", 0),
        ("-2s", -2),
        (".5s", 0.5),
        ("10us", 1e-5),
    ],
)
def test_reads_durations_as_go_does(text: str, seconds: float) -> None:
    assert seconds == pytest.approx(duration(text))


@pytest.mark.parametrize("text", ["", "10", "5 s", "s", "1d", "10s5", "1m -5s", "infs"])
def test_refuses_what_go_calls_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [("3", 3), ("-1", -1), ("+2", 2), ("0x10", 16), ("010", 8), ("0o10", 8), ("0b11", 3), ("0", 0)],
)
def test_reads_whole_numbers_in_gos_bases(text: str, number: int) -> None:
    assert number == whole(text)


@pytest.mark.parametrize("text", ["", "x", "1.5", "09", "1s", " 1"])
def test_refuses_what_go_calls_no_number(text: str) -> None:
    with pytest.raises(ValueError, match="is not a whole number"):
        whole(text)


def test_reads_booleans_in_gos_spellings_only() -> None:
    assert [True, True, False] == [boolean(text) for text in ("T", "1", "False")]
    with pytest.raises(ValueError, match="is not true or false"):
        boolean("yes")


@pytest.mark.parametrize("text", ["0.5", "30", "1e2", ".5"])
def test_reads_the_seconds_of_version_3(text: str) -> None:
    assert float(text) == go_values.number(text)


def test_refuses_a_unit_in_the_seconds_of_version_3() -> None:
    with pytest.raises(ValueError, match="is not a number of seconds"):
        go_values.number("0.5s")


def test_reads_one_credential_and_a_list() -> None:
    one = '{"url":"https://a","username":"u","password":"p"}'
    two = '{"url":"https://b","username":"v","password-file":"/f"}'

    assert (GivenCredential("https://a", "u", "p"),) == credentials(one)
    assert 2 == len(credentials(f"[{one},{two}]"))
    assert () == credentials(" ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x", "is not JSON"),
        ('["x"]', "is not a JSON object"),
        ('{"url":"a","username":"b","password":"c","port":"1"}', "unknown field 'port'"),
        ('{"username":"b","password":"c"}', "has no url"),
        ('{"url":"a","password":"c"}', "has no username"),
        ('{"url":"a","username":"b"}', "needs one of"),
        ('{"url":"a","username":"b","password":"c","password-file":"d"}', "needs one of"),
    ],
)
def test_says_what_is_wrong_with_a_credential(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        credentials(text)


def test_a_credential_does_not_show_its_password() -> None:
    assert "hidden" not in repr(GivenCredential("https://a", "u", "hidden"))


@pytest.mark.parametrize(
    ("text", "configs"),
    [
        ("a.b:c", [("a.b", "c")]),
        ("a.b:c,d.e:f", [("a.b", "c"), ("d.e", "f")]),
        ('"a.b.c":"d,e"', [("a.b.c", "d,e")]),
        ("a.b:c\\,d", [("a.b", "c,d")]),
        ('a.b:"x\\"y\\n"', [("a.b", 'x"y\n')]),
        ("a.b:c:d", [("a.b", "c:d")]),
        ("", []),
    ],
)
def test_reads_git_configs(text: str, configs: list[tuple[str, str]]) -> None:
    assert tuple(configs) == git_configs(text)


@pytest.mark.parametrize("text", ["a", "a.b:", '"a.b"c', '"a', 'a.b:"c"d', "a.b:xc\\q"])
def test_refuses_git_configs_that_git_sync_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="has "):
        git_configs(text)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(st.lists(st.tuples(TEXTS, TEXTS)))
def test_reads_back_the_git_configs_that_it_writes(configs: list[tuple[str, str]]) -> None:
    assert tuple(configs) == git_configs(write_git_configs(tuple(configs)))
