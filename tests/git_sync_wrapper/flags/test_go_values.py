"""
Values as git-sync reads them.
"""

from collections.abc import Callable

import pytest

from git_sync_wrapper.flags import go_values
from git_sync_wrapper.flags.go_values import (
    GivenCredential,
    boolean,
    credentials,
    duration,
    git_configs,
    whole,
)


@pytest.mark.parametrize(
    ("parse", "values"),
    [
        (duration, {"10s": 10, "1m30s": 90, "1.5h": 5400, "500ms": 0.5, "0": 0, "-2s": -2}),
        (duration, {".5s": 0.5, "10us": 1e-5}),
        (whole, {"3": 3, "-1": -1, "+2": 2, "0x10": 16, "010": 8, "0o10": 8, "0b11": 3, "0": 0}),
        (boolean, {"T": True, "1": True, "False": False}),
        (go_values.number, {"0.5": 0.5, "30": 30, "1e2": 100, ".5": 0.5}),  # version 3's seconds
    ],
)
def test_reads_values_as_go_does(parse: Callable[[str], float], values: dict[str, float]) -> None:
    assert {text: parse(text) for text in values} == pytest.approx(values)


@pytest.mark.parametrize(
    ("parse", "text", "problem"),
    [
        *((duration, text, "is not a duration") for text in ("", "10", "5 s", "s", "1d", "10s5")),
        *((duration, text, "is not a duration") for text in ("1m -5s", "infs")),
        *((whole, text, "is not a whole") for text in ("", "x", "1.5", "09", "1s", " 1")),
        (boolean, "yes", "is not true or false"),
        (go_values.number, "0.5s", "is not a number of seconds"),
        (credentials, "x", "is not JSON"),
        (credentials, '["x"]', "is not a JSON object"),
        (credentials, '{"url":"a","username":"b","password":"c","port":"1"}', "field 'port'"),
        (credentials, '{"username":"b","password":"c"}', "has no url"),
        (credentials, '{"url":"a","password":"c"}', "has no username"),
        (credentials, '{"url":"a","username":"b"}', "needs either"),
        (credentials, '{"url":"a","username":"b","password":"c","password-file":"d"}', "either"),
        *((git_configs, text, "has ") for text in ("a", "a.b:", '"a.b"c', '"a', 'a.b:"c"d')),
        (git_configs, "a.b:xc\\q", "has "),
    ],
)
def test_refuses_the_values_that_git_sync_refuses(
    parse: Callable[[str], object], text: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        parse(text)


def test_reads_one_credential_or_a_list_and_hides_passwords() -> None:
    one = '{"url":"https://a","username":"u","password":"hidden"}'
    two = '{"url":"https://b","username":"v","password-file":"/f"}'

    assert (GivenCredential("https://a", "u", "hidden"),) == credentials(one)
    assert "hidden" not in repr(credentials(one))
    assert 2 == len(credentials(f"[{one},{two}]"))
    assert () == credentials(" ")


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
