"""
The settings: the environment becomes a frozen object, or an error with all problems;
the parsers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from sidecar_runtime.errors import Problem, SettingsError
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
from sidecar_runtime.settings import (
    CommonSettings,
    changed_settings,
    describe,
    load,
    setting,
    without_password,
)
from tests import Facts
from tests.support.raising import raised

PREFIX = "BOX_SYNC_"
GOOD = {"BOX": "a-box"}


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    box: str = setting(
        "BOX", str, prefixed=False, required=True, allowed="a name", text="Which."
    )
    layout: str = setting("LAYOUT", choice("flat", "tree"), default="flat", text="How.")
    mode: int | None = setting("MODE", mode, text="Unset: the umask decides.")


def read(**environ: str) -> Settings:
    settings, _ = load(Settings, PREFIX, environ)
    return settings


def problems_of(**environ: str) -> list[Problem]:
    return raised(SettingsError, read, **environ).problems


# --- reading


def test_reports_all_problems_together() -> None:
    found = problems_of(
        INTERVAL="soon",
        BOX_SYNC_MODE="rwx",
        BOX_SYNC_LAYOUT="heap",
        BOX_SYNC_TIMEOUT="0",
        BOX_SYNC_LAYUOT="flat",
        BOX_SYNC_COLOR="red",
    )

    names = """
        BOX INTERVAL BOX_SYNC_MODE BOX_SYNC_LAYOUT
        BOX_SYNC_TIMEOUT BOX_SYNC_LAYUOT BOX_SYNC_COLOR
    """
    assert sorted(names.split()) == sorted(problem.setting for problem in found)


@pytest.mark.parametrize(
    ("mode", "named"), [("0644", "BOX_SYNC_LAYOUT"), ("r", "BOX_SYNC_MODE")]
)
def test_rules_across_settings_are_checked_once_each_of_them_is_right(
    mode: str, named: str
) -> None:
    environ = {"BOX": "a-box", "BOX_SYNC_MODE": mode}
    rule = [Problem("BOX_SYNC_LAYOUT", "tree", "needs another mode")]

    error = raised(SettingsError, load, Settings, PREFIX, environ, check=lambda _: rule)

    assert [named] == [problem.setting for problem in error.problems]


# --- names


@pytest.mark.parametrize(
    ("slip", "right"),
    [
        ("BOX_SYNC_ONESHOT", "BOX_SYNC_ONE_SHOT"),
        ("BOX_SYNC_LOG_LEVELS", "BOX_SYNC_LOG_LEVEL"),
        ("BOX_SYNC_INTERVAL", "INTERVAL"),
    ],
)
def test_a_typo_in_a_name_is_reported_with_the_right_name(
    slip: str, right: str
) -> None:
    assert [
        Problem(slip, None, f"is not a setting; did you mean {right}?")
    ] == problems_of(**GOOD, **{slip: "whatever"})


def test_a_wrong_name_of_a_harmful_lack_is_refused_unless_the_right_one_is_set() -> (
    None
):
    instead = {"CRATE": "BOX_SYNC_LAYOUT"}
    error = raised(
        SettingsError, load, Settings, PREFIX, GOOD | {"CRATE": "x"}, instead=instead
    )
    both = GOOD | {"CRATE": "x", "BOX_SYNC_LAYOUT": "flat"}

    assert [
        Problem("CRATE", None, "is not a setting; did you mean BOX_SYNC_LAYOUT?")
    ] == error.problems
    assert [] == load(Settings, PREFIX, both, instead=instead)[1]


@pytest.mark.parametrize("text", ["true", "false"])
def test_a_setting_of_an_earlier_version_is_refused_whatever_its_value(
    text: str,
) -> None:
    given = dict.fromkeys(["BOX_SYNC_PEDAL", "BOX_SYNC_JITTER"], text)
    given |= {"BOX_SYNC_PEDALS": text, "BOX_SYNC_LOGFORMAT": text}
    gone = {"PEDAL": "no longer exists: walk"}

    error = raised(SettingsError, load, Settings, PREFIX, GOOD | given, gone=gone)

    problems = {one.setting: one for one in error.problems}
    assert given.keys() == problems.keys()
    assert (
        Problem("BOX_SYNC_PEDAL", text, "no longer exists: walk")
        == problems["BOX_SYNC_PEDAL"]
    )
    assert problems["BOX_SYNC_PEDALS"].problem.endswith("That no longer exists: walk.")
    assert load(Settings, PREFIX, GOOD | {"BOX_SYNC_PEDAL": " "}, gone=gone)


def test_a_typo_in_a_required_name_is_pointed_out() -> None:
    (typo,) = problems_of(BOXX="secret", BOXING="x")
    (other,) = problems_of(BOXING="x")

    assert "is missing: a name (BOXX is set: is it a typo?)" == typo.problem
    assert "is missing: a name" == other.problem


def test_ignores_names_of_other_software_and_those_that_kubernetes_injects_for_a_service() -> (
    None
):
    others = [
        "BOXER",
        "INTERVALS",
        "LAYOUT",
        "BOX_SNYC_LAYOUT",
        "AIRFLOW__BOX_SYNC__LAYOUT",
    ]
    ends = ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP"]
    ends += [f"PORT_80_TCP_{end}" for end in ("PROTO", "PORT", "ADDR")]
    services = "BOX_SYNC", "BOX_SYNC_MODE", "BOX_SYNC_0"
    injected = [f"{name}_{end}" for name in services for end in ends]

    assert (
        [] == load(Settings, PREFIX, GOOD | dict.fromkeys([*others, *injected], "x"))[1]
    )


# --- showing


def test_changed_settings_are_shown_as_written_without_passwords() -> None:
    assert {
        "BOX": "https://***@example.com/a",
        "BOX_SYNC_LAYOUT": "TREE",
        "BOX_SYNC_TIMEOUT": "5m",
    } == changed_settings(
        Settings,
        PREFIX,
        {
            "BOX": "https://me:secret@example.com/a",
            "INTERVAL": "10s",
            "BOX_SYNC_LAYOUT": "TREE",
            "BOX_SYNC_MODE": " ",
            "BOX_SYNC_TIMEOUT": "5m",
            "OTHER": "x",
        },
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://u:p@h/r", "https://***@h/r"),
        ("ssh://git@h/r", "ssh://***@h/r"),
        ("https://u:p/q@h/r", "https://***@h/r"),
        ("https://u:p q@h/r", "https://***@h/r"),
        ("https://h/r?mail=a@b", "https://***@b"),
        ("no host in 'u:p@h'", "no host in '***@h'"),
        ("u:p@h and https://v:q@i", "***@h and https://***@i"),
        ("no scheme in '/u:p@h/r'", "no scheme in '***@h/r'"),
        ("git@h: denied, as a@b", "git@h: denied, as a@b"),
        (
            '[{"principal":"a@REALM","ccache":"/c"}]',
            '[{"principal":"a@REALM","ccache":"/c"}]',
        ),
        ("'https://u:p@h/r/': no host h", "'https://***@h/r/': no host h"),
        (
            "https://u:p@h\nhttps://i\nhttps://v:q@j",
            "https://***@h\nhttps://i\nhttps://***@j",
        ),
    ],
)
def test_hides_everything_up_to_the_last_at_sign_of_a_line_with_a_url(
    text: str, shown: str
) -> None:
    """
    It hides too much rather than a part of a password, which may contain a bare / or @.
    """
    assert shown == without_password(text)


def test_help_shows_allowed_values_and_defaults() -> None:
    text = describe(Settings, PREFIX, "OTHER")

    assert "  BOX  (required)\n      Which.\n      Allowed: a name.\n" in text
    assert (
        "  BOX_SYNC_LAYOUT  (default flat)\n      How.\n      Allowed: flat or tree.\n"
        in text
    )
    assert "  BOX_SYNC_MODE  (unset)\n" in text
    assert "Documentation: docs/README.md" in text


ADDRESSES = {
    ":9811": ("", 9811),
    "localhost:0": ("localhost", 0),
    "[fe80::1%eth0]:1": ("fe80::1%eth0", 1),
    "0.0.0.0:65535": ("0.0.0.0", 65535),
}


@pytest.mark.parametrize(
    ("parse", "values"),
    [
        (duration(), {"10": 10, "1.5s": 1.5, "5m": 300, "0": 0, " 10s ": 10}),
        (
            duration(),
            {"2d12h": 216_000, "1h30m10s": 5410, "1m500ms": 60.5, "1h 30m": 5400},
        ),
        (duration(at_least=1, at_most=60), {"1": 1, "1m": 60}),
        (
            boolean,
            dict.fromkeys(["true", "TRUE", "yes", "on", "1"], True),
        ),
        (boolean, dict.fromkeys(["false", "no", "off", "0"], False)),
        (count, {"0": 0, "999": 999}),
        (
            mode,
            {"0644": 0o644, "664": 0o664, "0400": 0o400},
        ),
        (words, {"*.py, *.sql ,,b": ("*.py", "*.sql", "b"), " , ": ()}),
        (choice("json", "console"), {"JSON": "json"}),
        (
            absolute_path,
            {"/dags/": "/dags", "//a///b/./c/..": "/a/b", "/a b/ü": "/a b/ü"},
        ),
        (bind_address, ADDRESSES),
    ],
)
def test_parses_allowed_values(parse: Callable[[str], object], values: Facts) -> None:
    assert values == {text: parse(text) for text in values}


@pytest.mark.parametrize(
    ("parse", "problem", "texts"),
    [
        (
            duration(),
            "is not a duration such as 10, 10s, 5m or 1h30m",
            "soon|10x|m5|5m1h|-1|1,5|1e3|inf|nan|1w|| |10 s s|s",
        ),
        (
            duration(at_least=1, at_most=60),
            "from 1s to 60s",
            "0.999|61|0|2h",
        ),
        (duration(at_least=1), "from 1s to 7d", "0|8d"),
        (boolean, "is not true or false", "|maybe|2|truefalse|t"),
        (count, "is not a whole number", "-1|1.0|many||1_000|1111111111"),
        (choice("json", "console"), "is not one of json, console", "xml"),
        (
            mode,
            'is not an octal mode such as "0644"',
            "0888|rw-r--r--|0o644|64|06440|1777|-644|",
        ),
        # YAML turns an unquoted 0644, 0664, 0640, 0600 or 0660 into these numbers, and
        # Helm passes them on. Read as octal, 420 would allow only the group to write.
        (mode, 'is not an octal mode such as "0644"', "420|436|416|384|432"),
        (mode, "does not allow the owner to read", "0000|0200|0044"),
        (
            absolute_path,
            "is not an absolute path",
            "dags|./dags|~/dags||s3://bucket/dags|/a\0b",
        ),
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
