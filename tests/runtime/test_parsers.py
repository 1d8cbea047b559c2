"""
The parsers of settings: the value, or an error that describes the allowed values.
"""

from collections.abc import Callable

import pytest

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

ADDRESSES = {
    ":9811": ("", 9811),
    "127.0.0.1:9811": ("127.0.0.1", 9811),
    "localhost:0": ("localhost", 0),
    "[::1]:9811": ("::1", 9811),
    "[fe80::1%eth0]:1": ("fe80::1%eth0", 1),
    "0.0.0.0:65535": ("0.0.0.0", 65535),
}


@pytest.mark.parametrize(
    ("parse", "values"),
    [
        (duration(), {"10": 10, "0.5": 0.5, "10s": 10, "1.5s": 1.5, "5m": 300, "1h": 3600}),
        (duration(), {"1h30m": 5400, "2d12h": 216_000, "1h30m10s": 5410, "2m30s": 150, "0": 0}),
        (duration(), {"500ms": 0.5, "1s500ms": 1.5, "1m500ms": 60.5, " 10s ": 10, "1h 30m": 5400}),
        (duration(at_least=1, at_most=60), {"1": 1, "1m": 60}),
        (boolean, dict.fromkeys(["true", "True", "TRUE", "yes", "on", "1", " true "], True)),
        (boolean, dict.fromkeys(["false", "False", "FALSE", "no", "off", "0"], False)),
        (count, {"0": 0, "7": 7, " 999 ": 999}),
        (mode, {"0644": 0o644, "644": 0o644, " 0400 ": 0o400, "0777": 0o777, "664": 0o664}),
        (words, {"*.py, *.sql ,,b": ("*.py", "*.sql", "b"), " , ": ()}),
        (choice("json", "console"), {" JSON ": "json"}),
        (absolute_path, {"/dags": "/dags", "/dags/": "/dags", "//a///b/./c/..": "/a/b"}),
        (absolute_path, {"/a b/ü": "/a b/ü"}),
        (bind_address, ADDRESSES),
    ],
)
def test_parses_allowed_values(parse: Callable[[str], object], values: dict[str, object]) -> None:
    assert values == {text: parse(text) for text in values}


@pytest.mark.parametrize(
    ("parse", "problem", "texts"),
    [
        (
            duration(),
            "is not a duration such as 10, 10s, 5m or 1h30m",
            "soon|10x|m5|5m1h|-1|1,5|1e3|inf|nan|1w|| |10 s s|s",
        ),
        (duration(at_least=1, at_most=60), "is not between 1s and 60s", "0.999|61|0|2h"),
        (duration(at_least=1), "is not between 1s and 7d", "0|8d"),
        (boolean, "is not true or false", "|maybe|2|truefalse|t"),
        (count, "is not a whole number", "-1|1.0|many||1_000|1111111111"),
        (choice("json", "console"), "is not one of json, console", "xml"),
        (
            mode,
            'is not an octal mode such as "0644"',
            "0888|rw-r--r--|0o644|64|06440|1777|-644|",
        ),
        # YAML turns an unquoted 0644, 0664, 0640, 0600 or 0660 into these numbers, and Helm passes
        # them on. Read as octal, 420 would allow only the group to write.
        (mode, 'is not an octal mode such as "0644"', "420|436|416|384|432"),
        (mode, "does not allow the owner to read", "0000|0200|0044"),
        (absolute_path, "is not an absolute path", "dags|./dags|~/dags||s3://bucket/dags|/a\0b"),
        (absolute_path, "is the root of the file system", "/|//|/.|/a/..|/../.."),
        (
            bind_address,
            "is not HOST:PORT or :PORT",
            "9811|localhost|::1:9811|host:|:65536|:-1|tcp://10.0.0.1:80|[]:1",
        ),
    ],
)
def test_rejects_other_values_and_describes_the_allowed_ones(
    parse: Callable[[str], object], problem: str, texts: str
) -> None:
    for text in texts.split("|"):
        with pytest.raises(ValueError, match=problem):
            pytest.fail(f"{text!r} is {parse(text)!r}")
