"""
git-sync's flags and variables, old and new, as one object.
"""

from pathlib import Path

import pytest

from git_sync_wrapper.options import Options, configs, for_git_sync, read_options
from sidecar_runtime.errors import SettingsError
from tests import Texts
from tests.support.raising import raised

REPO = {"GITSYNC_REPO": "https://git.example.com/team/dags.git"}


def read(*arguments: str, **environ: str) -> Options:
    return read_options(arguments, REPO | environ)


def test_passes_on_what_it_does_not_know() -> None:
    arguments = ("-v3", "--frob=1", "--git-gc", "off", "--depth=2")
    environ = {"GITSYNC_FROB": "x", "PATH": "/bin"}
    ours = {
        "GITSYNC_PASSWORD": "p",
        "GITSYNC_VERBOSE": "",
        "GIT_SYNC_BRANCH": "b",
        "GIT_SYNC_WRAPPER_FSYNC": "true",
    }

    assert arguments == read(*arguments, "--link", "repo", "--password=p").arguments
    assert environ == for_git_sync(environ | ours)


def test_a_default_of_the_chart_overrides_nothing() -> None:
    """Its user sets dags.gitSync.ref or .rev alone."""
    chart = {"GITSYNC_REF": "v2-2-stable", "GIT_SYNC_BRANCH": "v2-2-stable"}

    assert "main" == read(**chart | {"GITSYNC_REF": "main", "GIT_SYNC_REV": "HEAD"}).ref
    assert "v1" == read(**chart, GIT_SYNC_REV="v1").ref


def test_repeated_flags_accumulate() -> None:
    one = '{"url":"https://a","username":"u","password":"p"}'
    options = read(
        f"--credential={one}",
        f"--credential=[{one}]",
        "--ssh-key-file=/a",
        "--ssh-key-file=/b",
        GITSYNC_CREDENTIAL=one,
    )

    assert 3 == len(options.credential)
    assert ("/a", "/b") == options.ssh_key_file


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ('a.b:"c,d",e.f:g h', [("a.b", "c,d"), ("e.f", "g h")]),
        (r'"a.x y.b":"q\"q",c.d:1\,2', [("a.x y.b", 'q"q'), ("c.d", "1,2")]),
        ("http.extraHeader:A: b", [("http.extraHeader", "A: b")]),
    ],
)
def test_reads_git_configurations(text: str, pairs: list[tuple[str, str]]) -> None:
    assert tuple(pairs) == configs(text)


@pytest.mark.parametrize(
    ("environ", "shown", "said"),
    [
        ({"GIT_SYNC_WAIT": "inf"}, "inf", "is not a number"),
        ({"GIT_SYNC_TIMEOUT": "010"}, "010", "is not a number"),
        ({"GIT_SYNC_WAIT": "git://me:pw@h"}, "git://***@h", "is not a number"),
        ({"GITSYNC_PERIOD": ".5s"}, ".5s", "is not a duration"),
        ({"GITSYNC_GIT_CONFIG": "x"}, "***", "is not KEY:VALUE"),
        ({"GITSYNC_CREDENTIAL": "{}"}, "***", "is not JSON with an http"),
        (
            {
                "GITSYNC_CREDENTIAL": '{"url": "http://h", "username": "u", "password": 7}'
            },
            "***",
            "is not JSON with an http",
        ),
        *(
            ({"GITSYNC_REPO": repo}, "***", "%2F")
            for repo in (
                "https://x/y?t=hush",
                "https://me:hu/sh@x/y",
                "https://me:12/sh@x/y",
                "https://hu/sh@x/y",
                "https://me:12#sh@x/y",
                "https://me:p@1/sh@x/y",
                "https://me:hush@[x/y",
                "ssh://git:hush@x/y",
                "HTTPS://me:12/sh@x/y",
                "ftp://me:hush@x/y",
                "me:hush@h/x",
                "me:hu/sh@h/x",
                "me:hush@h:1/x",
                "hush@h/x",
            )
        ),
        ({"GITSYNC_SYNC_ON_SIGNAL": "KILL"}, "KILL", "is not a signal"),
    ],
)
def test_reports_a_problem_under_the_given_name_and_hides_secrets(
    environ: Texts, shown: str, said: str
) -> None:

    (problem,) = raised(SettingsError, read_options, [], REPO | environ).problems
    assert (*environ, shown) == problem[:2]
    assert said in problem.problem


def test_ignores_arguments_that_are_not_flags_as_git_sync_does() -> None:
    options = read("--one-time", "true", "--ref", "2", "word", "--", "--ref", "3")

    assert (True, "2") == (options.one_time, options.ref)


def test_resolves_the_root_and_paths_below_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to("real")

    options = read(f"--root={tmp_path}/root/.", "--link=a/../b", "--touch-file=/t")

    assert f"{tmp_path}/real" == options.root
    assert (f"{tmp_path}/real/b", "/t") == (options.link, options.touch_file)
