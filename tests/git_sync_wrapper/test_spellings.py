"""
Two spellings of one setting have the effect that they have in git-sync itself, whose
binary logs what it made of them before it looks for git.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from functools import cache
from typing import NamedTuple

import pytest

from git_sync_wrapper.options import (
    FLAGS,
    OLD,
    Options,
    for_git_sync,
    read_options,
)
from sidecar_runtime.errors import SettingsError
from tests import Texts
from tests.support.git.git_sync import GIT_SYNC, skip_without_git_sync

# Two texts for each kind of setting that is not a word, and another form of the first.
TEXTS: dict[str, tuple[str, ...]] = {
    "bool": ("true", "false", "1"),
    "int": ("7", "8", "0x7"),
    "passed": ("7", "8"),
    "float": ("7", "8", "7e0"),
    "duration": ("7s", "8s", "0m7s"),
    "submodules": ("shallow", "off"),
    "sync-on-signal": ("SIGUSR1", "SIGUSR2"),
    "git-config": ("a.b:c", "d.e:f"),
    "http-bind": (":7", ":8"),
    "root": ("/nowhere/a", "/nowhere/b"),
}
# Forms that only git-sync refuses, with what they mean.
LENIENT = {"bool": ("yes", "true"), "duration": ("7", "7s")}
# What git-sync requires beside them.
APP = {
    "GITSYNC_GITHUB_APP_INSTALLATION_ID": "1",
    "GITSYNC_GITHUB_APP_PRIVATE_KEY": "k",
}
BESIDE = {
    "username": {"GITSYNC_PASSWORD_FILE": "/p"},
    "password-file": {"GITSYNC_USERNAME": "u"},
    "http-metrics": {"GITSYNC_HTTP_BIND": ":1"},
    "http-pprof": {"GITSYNC_HTTP_BIND": ":1"},
    "github-app-client-id": APP,
    "github-app-application-id": APP,
}
# No log shows a password, and --credential adds to its variable.
WATCHED = sorted(FLAGS.keys() - {"password", "credential"})

Given = tuple[tuple[str, str], ...]
"""Spellings with their texts, flags in their order."""


class Outcome(NamedTuple):
    """
    What came of some spellings: a value, or a refusal.
    """

    value: object
    refusal: str = ""


def split(given: Given) -> tuple[list[str], Texts]:
    words = [f"{name}={text}" for name, text in given if name.startswith("--")]
    return words, {name: text for name, text in given if not name.startswith("--")}


def surroundings(name: str) -> Texts:
    required = {"GITSYNC_REPO": "https://h/dags", "GITSYNC_ROOT": "/nowhere"}
    required.pop(f"GITSYNC_{name.upper()}", None)
    return required | BESIDE.get(name, {})


@cache
def git_sync(name: str, given: Given) -> Outcome:
    words, environ = split(given)
    return started(name, words, surroundings(name) | environ)


def started(name: str, words: list[str], environ: Texts) -> Outcome:
    """
    Return what git-sync makes of a setting.
    """
    no_git = [] if name == "git" else ["--git=/nowhere/git"]
    done = subprocess.run(
        [GIT_SYNC, *words, "--verbose=6", *no_git],
        env=environ,
        capture_output=True,
        text=True,
    )
    for line in done.stderr.splitlines():
        if '"msg":"starting up"' in line:
            flags = [word.removeprefix("--") for word in json.loads(line)["flags"]]
            return Outcome(
                dict(flag.partition("=")[::2] for flag in flags).get(name, "")
            )
    return Outcome(None, done.stderr)


@cache
def wrapper(name: str, given: Given) -> Outcome:
    words, environ = split(given)
    environ = surroundings(name) | environ
    try:
        options = read_options(words, environ)
    except SettingsError as error:
        return Outcome(None, str(error))
    if FLAGS[name].is_passed:
        passed = started(
            name, [*options.arguments], surroundings(name) | for_git_sync(environ)
        )
        theirs = git_sync(name, given)
        assert not theirs.value or passed == theirs, f"git-sync gets another {given}"
    return Outcome(getattr(options, name.replace("-", "_")))


def spellings(name: str) -> list[str]:
    """
    Return all spellings of a setting that any version of git-sync has had, and those
    that somebody would expect.
    """
    base = name.upper().replace("-", "_")
    found = [f"--{name}", f"GITSYNC_{base}", f"GIT_SYNC_{base}", *FLAGS[name].also]
    for flag, (variable, new, _) in OLD.items():
        if new == name:
            found += [f"--{flag}", variable]
    return list(dict.fromkeys(found))


def kind(name: str, spelling: str) -> str:
    """
    Return which texts a spelling takes.
    """
    if name in TEXTS:
        return name
    if spelling in ("--wait", "GIT_SYNC_WAIT"):
        return "float"
    if spelling in ("--timeout", "GIT_SYNC_TIMEOUT"):
        return "int"
    if isinstance(getattr(Options(), name.replace("-", "_")), bool):
        return "bool"
    if re.search("period|timeout|backoff", name):
        return "duration"
    if re.search("depth|application", name):
        return "passed"
    return "int" if re.search("failures|status", name) else "word"


def texts(name: str, spelling: str) -> tuple[str, ...]:
    return TEXTS.get(kind(name, spelling), ("one", "two"))


def singles(name: str) -> list[Given]:
    return [((one, x),) for one in spellings(name) for x in texts(name, one)]


def pairs(name: str) -> list[Given]:
    """
    Return each spelling alone, and each pair of them with two different texts, one of
    them empty as well; a pair of flags in both orders.
    """
    given = singles(name)
    for one, other in itertools.permutations(spellings(name), 2):
        last = (other, texts(name, other)[1])
        given += [((one, texts(name, one)[0]), last), ((one, ""), last)]
    return given


@pytest.fixture(autouse=True)
def needs_git_sync() -> None:
    """Skip if git-sync is missing."""
    skip_without_git_sync()


def check(name: str, given: Given) -> None:
    """
    Compare which effect these spellings have here and in git-sync: equal effects there
    are equal here, and others are others.
    """
    theirs = git_sync(name, given)
    ours = wrapper(name, given)
    if theirs.refusal or theirs.value in ("", "[]"):
        return  # git-sync does not start, could not work, or has an empty list
    assert not ours.refusal, f"{given}: {ours.refusal}"
    same = [x for x in [(), *singles(name)] if git_sync(name, x) == theirs]
    assert same, f"{given}: git-sync has {theirs}"
    assert wrapper(name, same[0]) == ours, f"{given} is not {same[0]}"


@pytest.mark.sample(20)
@pytest.mark.parametrize("name", WATCHED)
def test_each_pair_of_spellings_does_what_it_does_in_git_sync(name: str) -> None:
    for given in pairs(name):
        check(name, given)


@pytest.mark.parametrize("name", WATCHED)
def test_only_git_sync_refuses_these_forms(name: str) -> None:
    for spelling in spellings(name):
        assert wrapper(name, ((spelling, ""),)) == wrapper(name, ())
        form, plain = LENIENT.get(kind(name, spelling), ("", ""))
        assert wrapper(name, ((spelling, form),)) == wrapper(name, ((spelling, plain),))
