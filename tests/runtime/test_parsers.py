"""
Text to value, or what is allowed.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar_runtime.parsers import (
    absolute_path,
    bind_address,
    boolean,
    choice,
    count,
    duration,
    mode,
    words,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10", 10),
        ("0.5", 0.5),
        ("10s", 10),
        ("1.5s", 1.5),
        ("5m", 300),
        ("1h30m", 5400),
        ("2d12h", 216_000),
        ("1h", 3600),
        ("1h30m10s", 5410),
        ("2m30s", 150),
        ("500ms", 0.5),
        ("1s500ms", 1.5),
        ("1m500ms", 60.5),
        (" 10s ", 10),
        ("1h 30m", 5400),
        ("0", 0),
    ],
)
def test_reads_durations(text: str, seconds: float) -> None:
    assert duration()(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["soon", "10x", "m5", "5m1h", "-1", "1,5", "1e3", "inf", "nan", "1w", "", " ", "10 s s", "s"],
)
def test_refuses_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration such as 10, 10s, 5m or 1h30m"):
        duration()(text)


def test_a_duration_must_be_within_its_limits() -> None:
    parse = duration(at_least=1, at_most=60)

    assert (parse("1"), parse("1m")) == (1, 60)
    for text in ("0.999", "61", "0", "2h"):
        with pytest.raises(ValueError, match="is not between 1s and 60s"):
            parse(text)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert duration()(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "yes", "on", "1", " true "])
def test_reads_what_is_true(text: str) -> None:
    assert boolean(text) is True


@pytest.mark.parametrize("text", ["false", "False", "FALSE", "no", "off", "0"])
def test_reads_what_is_false(text: str) -> None:
    assert boolean(text) is False


@pytest.mark.parametrize("text", ["", "maybe", "2", "truefalse", "t"])
def test_refuses_what_is_neither(text: str) -> None:
    with pytest.raises(ValueError, match="is not true or false"):
        boolean(text)


def test_reads_counts() -> None:
    assert [0, 7, 999] == [count(text) for text in ("0", "7", " 999 ")]
    for text in ("-1", "1.0", "many", "", "1_000", "1" * 10):
        with pytest.raises(ValueError, match="is not a whole number"):
            count(text)


def test_reads_modes() -> None:
    texts = ("0644", "644", " 0400 ", "0777", "664")
    assert [0o644, 0o644, 0o400, 0o777, 0o664] == [mode(text) for text in texts]


@pytest.mark.parametrize("text", ["0888", "rw-r--r--", "0o644", "64", "06440", "1777", "-644", ""])
def test_refuses_what_is_no_mode(text: str) -> None:
    with pytest.raises(ValueError, match='is not an octal mode such as "0644"'):
        mode(text)


@pytest.mark.parametrize("octal", ["0644", "0664", "0640", "0600", "0660"])
def test_refuses_the_number_that_yaml_makes_of_a_mode(octal: str) -> None:
    """
    Helm passes an unquoted 0644 on as 420, which would let nobody but the group write.
    """
    text = str(int(octal, 8))
    with pytest.raises(ValueError, match='is not an octal mode such as "0644"'):
        mode(text)


@pytest.mark.parametrize("text", ["0000", "0200", "0044"])
def test_refuses_modes_that_lock_the_owner_out(text: str) -> None:
    with pytest.raises(ValueError, match="does not let the owner read"):
        mode(text)


def test_reads_lists() -> None:
    assert words("*.py, *.sql ,,b") == ("*.py", "*.sql", "b")
    assert words(" , ") == ()


def test_reads_a_choice_in_any_case() -> None:
    parse = choice("json", "console")

    assert parse(" JSON ") == "json"
    with pytest.raises(ValueError, match="is not one of json, console"):
        parse("xml")


@pytest.mark.parametrize(
    ("text", "path"),
    [("/dags", "/dags"), ("/dags/", "/dags"), ("//a///b/./c/..", "/a/b"), ("/a b/ü", "/a b/ü")],
)
def test_reads_absolute_paths(text: str, path: str) -> None:
    assert absolute_path(text) == path


@pytest.mark.parametrize("text", ["dags", "./dags", "~/dags", "", "s3://bucket/dags", "/a\0b"])
def test_refuses_paths_that_are_not_absolute(text: str) -> None:
    with pytest.raises(ValueError, match="is not an absolute path"):
        absolute_path(text)


@pytest.mark.parametrize("text", ["/", "//", "/.", "/a/..", "/../.."])
def test_refuses_the_root_of_the_file_system(text: str) -> None:
    with pytest.raises(ValueError, match="is the root of the file system"):
        absolute_path(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":9811", ("", 9811)),
        ("127.0.0.1:9811", ("127.0.0.1", 9811)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:9811", ("::1", 9811)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
    ],
)
def test_reads_bind_addresses(text: str, address: tuple[str, int]) -> None:
    assert bind_address(text) == address


@pytest.mark.parametrize(
    "text", ["9811", "localhost", "::1:9811", "host:", ":65536", ":-1", "tcp://10.0.0.1:80", "[]:1"]
)
def test_refuses_what_is_no_bind_address(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT or :PORT"):
        bind_address(text)
