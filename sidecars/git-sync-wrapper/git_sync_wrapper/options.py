"""
The settings of git-sync that the wrapper must know, from flags and variables in every
spelling.

All others reach git-sync unread, and it checks them itself. Of these, git-sync gets
what its `Flag` passes on, as a flag. Of several spellings, the one wins that wins in
git-sync 4.7.1: a name of version 3, even over a flag; then a flag; then the older
variable. Two exceptions: an empty text that wins means the default, and what only the
official chart's default sets overrides nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.parsers import YEAR_SECONDS, bind_address, boolean, duration
from sidecar_runtime.settings import without_password

OURS = "GIT_SYNC_WRAPPER_"
FULL_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# What `dags.gitSync.branch` and `.ref` are if their user sets neither (official chart,
# from 1.13.1 to 1.22.0 at least); the chart always sets both variables.
CHART_REF = "v2-2-stable"
_FLAG = "git_sync_wrapper.flag"
# git@host:path, a path, helper::address; any other text with an @ is a URL without https://.
_NO_URL = re.compile(r"[^:/]+@[^/]+:|\.{0,2}/|\w+::|[^@]*$")
_TEXT = r'"(?:\\.|[^"\\])*"'
_CONFIG = re.compile(rf'({_TEXT}|[^":][^:]*):({_TEXT}|(?!")(?:\\.|[^,\\])+)(?:,|$)')
_ESCAPES = {"\\": "\\", '"': '"', "n": "\n", "t": "\t", ",": ","}


# --- values


def logins(text: str) -> list[dict[str, str]]:
    """
    Read the JSON of ``--credential``: objects and lists of objects, separated by
    commas.
    """
    try:
        found = json.loads(f"[{text}]")
        items = [
            item for one in found for item in (one if isinstance(one, list) else [one])
        ]
        if all(
            re.fullmatch(r"https?://[^/\s\0][^\s\0]*", one["url"])
            and one["username"]
            and {str} == {*map(type, one.values())}
            for one in items
        ):
            return items
    except (ValueError, TypeError, KeyError):
        pass
    text = "is not JSON with an http(s) url, username, and password or password-file"
    raise ValueError(text) from None


def configs(text: str) -> tuple[tuple[str, str], ...]:
    """
    Read ``section.key:value,"section.sub.key":"value"``; a backslash escapes special
    characters.
    """
    found = []
    start = 0
    while start < len(text):
        match = _CONFIG.match(text, start)
        if match is None:
            raise ValueError(
                'is not KEY:VALUE[,KEY:VALUE...]; a value may be in "quotes"'
            )
        found.append((_plain(match[1]), _plain(match[2])))
        start = match.end()
    return tuple(found)


def _plain(text: str) -> str:
    text = text[1:-1] if text.startswith('"') else text
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), text)


def signal_name(text: str) -> signal.Signals:
    """
    Read the name (``SIGHUP``, ``HUP``) or number of a signal that can trigger a sync.
    """
    for one in signal.Signals:
        is_meant = text in (one.name, one.name.removeprefix("SIG"), str(int(one)))
        if is_meant and one.name not in ("SIGKILL", "SIGSTOP", "SIGTERM", "SIGINT"):
            return one
    raise ValueError("is not a signal that can trigger a sync, such as SIGHUP")


def _paths(text: str) -> tuple[str, ...]:
    return tuple(text.split(":"))


def _whole(text: str) -> int:
    try:
        return int(text, 0)  # git-sync would read 010 as 8
    except ValueError:
        raise ValueError("is not a whole number") from None


_seconds = duration(at_most=10 * YEAR_SECONDS)
# git-sync refuses shorter ones, too: in no time, nothing can succeed.
_timeout = duration(at_least=0.01, at_most=10 * YEAR_SECONDS)


# --- flags


class Flag(NamedTuple):
    """
    A flag that the wrapper reads.

    Args:
        is_passed: Whether git-sync gets the value as well; the others are the wrapper's
            own affair.
        also: Its variables besides ``GITSYNC_NAME`` and ``GIT_SYNC_NAME``.
        separator: Joins its values if the flag is repeated.
    """

    parse: Callable[[str], Any] = str
    is_passed: bool = False
    is_secret: bool = False
    also: tuple[str, ...] = ()
    separator: str = ""


def flag(default: Any, parse: Callable[[str], Any] = str, **more: Any) -> Any:
    """
    Declare a field that a flag sets, with git-sync's default and the arguments of a
    :class:`Flag`.
    """
    return dataclasses.field(default=default, metadata={_FLAG: Flag(parse, **more)})


# Source: git-sync's main.go and env.go at v4.7.1 and on its main branch (2026-10).
@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Options:
    """
    The settings of git-sync, with its defaults. Paths are absolute; durations are in
    seconds.

    Args:
        arguments: The arguments that git-sync gets.
        repo: The repository's URL, without user and password.
        max_failures: As git-sync counts them; negative: retry indefinitely.
    """

    arguments: tuple[str, ...] = ()

    repo: str = flag("")
    ref: str = flag("HEAD")
    root: str = flag("/git")
    link: str = flag("")
    depth: str = flag("", is_passed=True)
    filter: str = flag("", is_passed=True)
    submodules: str = flag("", is_passed=True)
    sparse_checkout_file: str = flag("", is_passed=True)
    group_write: bool = flag(False, boolean, is_passed=True)
    git: str = flag("git", is_passed=True)
    # They may hold http.extraHeader.
    git_config: tuple[tuple[str, str], ...] = flag((), configs, is_secret=True)
    period: float = flag(10.0, _seconds)
    init_period: float | None = flag(None, _seconds)
    sync_timeout: float = flag(120.0, _timeout)
    one_time: bool = flag(False, boolean)
    sync_on_signal: signal.Signals | None = flag(None, signal_name)  # noqa: RUF009
    max_failures: int = flag(0, _whole)
    init_max_failures: int = flag(0, _whole)
    stale_worktree_timeout: float = flag(0.0, _seconds)
    add_user: bool = flag(False, boolean)
    error_file: str = flag("")
    touch_file: str = flag("")
    exechook_command: str = flag("")
    exechook_timeout: float = flag(30.0, _timeout)
    exechook_backoff: float = flag(3.0, _seconds)
    webhook_url: str = flag("", is_secret=True)  # some have a token in their path
    webhook_method: str = flag("POST")
    webhook_success_status: int = flag(200, _whole)
    webhook_timeout: float = flag(1.0, _timeout)
    webhook_backoff: float = flag(3.0, _seconds)
    username: str = flag("")
    password: str = flag("", is_secret=True)
    password_file: str = flag("")
    credential: Sequence[dict[str, str]] = flag(
        (), logins, is_secret=True, separator=","
    )
    askpass_url: str = flag("", also=("GIT_ASKPASS_URL",))
    ssh_key_file: tuple[str, ...] = flag(
        ("/etc/git-secret/ssh",), _paths, also=("GIT_SSH_KEY_FILE",), separator=":"
    )
    ssh_known_hosts: bool = flag(
        True,
        boolean,
        is_passed=True,
        also=("GIT_SYNC_KNOWN_HOSTS", "GIT_KNOWN_HOSTS"),
    )
    ssh_known_hosts_file: str = flag(
        "/etc/git-secret/known_hosts", also=("GIT_SSH_KNOWN_HOSTS_FILE",)
    )
    cookie_file: bool = flag(False, boolean, is_passed=True, also=("GIT_COOKIE_FILE",))
    github_app_client_id: str = flag("", is_passed=True)
    github_app_application_id: str = flag("", is_passed=True)
    http_bind: tuple[str, int] | None = flag(None, bind_address)
    http_metrics: bool = flag(False, boolean)
    http_pprof: bool = flag(False, boolean)

    @property
    def is_pinned(self) -> bool:
        """
        Whether the ref is the full hash of a commit, which never moves.
        """
        return FULL_COMMIT.fullmatch(self.ref) is not None

    @property
    def is_github_app(self) -> bool:
        """
        Whether git-sync itself requests the token of a GitHub App.
        """
        return bool(self.github_app_client_id or self.github_app_application_id)

    @property
    def source(self) -> str:
        """
        Repository and ref for display.
        """
        return f"{self.repo} {self.ref}"

    @property
    def made_by(self) -> str:
        """
        The flags that affect the files and the history of a commit.
        """
        return json.dumps(
            [
                self.depth,
                self.filter,
                self.submodules,
                self.sparse_checkout_file,
                self.group_write,
            ]
        )


FLAGS: dict[str, Flag] = {
    field.name.replace("_", "-"): field.metadata[_FLAG]
    for field in dataclasses.fields(Options)
    if _FLAG in field.metadata
}


def _milliseconds(text: str) -> str:
    found = int(float(text) * 1000)
    return f"{found}ms" if found else ""


def _not_zero(text: str) -> str:
    return str(_whole(text) or "")


# The names of git-sync 3: flag → variable, flag of git-sync 4, and how its text becomes
# the new one's.
OLD: dict[str, tuple[str, str, Callable[[str], str]]] = {
    "rev": ("GIT_SYNC_REV", "ref", str),
    "branch": ("GIT_SYNC_BRANCH", "ref", str),
    "dest": ("GIT_SYNC_DEST", "link", str),
    "wait": ("GIT_SYNC_WAIT", "period", _milliseconds),
    "timeout": ("GIT_SYNC_TIMEOUT", "sync-timeout", _not_zero),
    "max-sync-failures": ("GIT_SYNC_MAX_SYNC_FAILURES", "max-failures", _not_zero),
    "sync-hook-command": ("GIT_SYNC_HOOK_COMMAND", "exechook-command", str),
}


# They came with version 4: git-sync ignores GIT_SYNC_REF and the like.
NEW = {
    "credential",
    "filter",
    "github-app-application-id",
    "github-app-client-id",
    "init-max-failures",
    "init-period",
    "ref",
    "ssh-known-hosts",
    "stale-worktree-timeout",
}


def variables(name: str) -> tuple[str, ...]:
    """
    Return the variables of a flag, the one that wins last.
    """
    base = name.upper().replace("-", "_")
    old = () if name in NEW else (f"GIT_SYNC_{base}",)
    return (f"GITSYNC_{base}", *old, *FLAGS[name].also)


TAKEN = {variable for name in FLAGS for variable in variables(name)}
TAKEN |= {variable for variable, _, _ in OLD.values()}
"""The variables that git-sync does not get, because the wrapper reads them."""


def for_git_sync(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return the environment that git-sync gets: it takes an empty number for a wrong one.
    """
    return {
        name: value
        for name, value in environ.items()
        if value and not (name in TAKEN or name.startswith(OURS))
    }


def read_options(arguments: Sequence[str], environ: Mapping[str, str]) -> Options:
    """
    Read git-sync's flags and variables.

    Raises:
        SettingsError: One or more are invalid; it lists all of them, by the names that
            were used.
    """
    problems: list[Problem] = []
    texts = dict(environ)
    rest = _read_line(arguments, texts, problems)
    given = _winners(texts)
    _let_old_ones_win(given, texts, problems)
    values: dict[str, Any] = {}
    for name, one in FLAGS.items():
        origin, text = given[name]
        if text:
            try:
                value = values[name.replace("-", "_")] = one.parse(text)
            except ValueError as error:
                shown = "***" if one.is_secret else without_password(text)
                problems.append(Problem(origin, shown, str(error)))
                continue
            if one.is_passed:
                rest.append(f"--{name}={value}")
    problems += _check(values)
    if problems:
        raise SettingsError(problems)
    _take_login_from_url(values)
    _complete(values)
    return Options(arguments=tuple(rest), **values)


def _read_line(
    arguments: Sequence[str], texts: dict[str, str], problems: list[Problem]
) -> list[str]:
    """
    Add the values of our flags, ``--flag=value`` or ``--flag value``, to the texts of
    the variables; return what git-sync gets.
    """
    # The one flag that adds to its variable.
    before = {"credential": texts.get("GITSYNC_CREDENTIAL")}
    rest = []
    words = iter(arguments)
    for word in words:
        if word == "--":  # what follows are no flags, and git-sync ignores it
            break
        name, has_value, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in FLAGS.keys() | OLD.keys():
            rest.append(word)
            continue
        one = FLAGS.get(name, Flag())
        origin = f"--{name}"
        if not has_value:
            value = "true" if one.parse is boolean else next(words, "")
            if not value:
                problems.append(Problem(origin, "", "needs a value"))
        if one.separator:
            earlier = texts.get(origin, before.get(name))
            value = one.separator.join(filter(None, (earlier, value)))
        texts[origin] = value
    return rest


Spelled: TypeAlias = tuple[str, str]
"""A spelling with its text; an empty text is unset."""


def _winners(texts: Mapping[str, str]) -> dict[str, Spelled]:
    """
    Return the spelling of each flag that wins in git-sync among its names of version 4.
    """
    given: dict[str, Spelled] = {}
    for name in FLAGS:
        given[name] = ("", "")
        for origin in (*variables(name), f"--{name}"):
            if origin in texts:
                given[name] = (origin, texts[origin])
    return given


def _let_old_ones_win(
    given: dict[str, Spelled], texts: Mapping[str, str], problems: list[Problem]
) -> None:
    """
    Replace what a flag or variable of version 3 sets, too; but the chart always sets
    all three variables of the ref.
    """
    new = given["ref"]
    old: dict[str, Spelled] = {}
    for flag, (variable, name, convert) in OLD.items():
        origin = f"--{flag}" if f"--{flag}" in texts else variable
        text = texts.get(origin, "")
        try:
            text = text and convert(text)
        except (ValueError, OverflowError):
            problems.append(Problem(origin, without_password(text), "is not a number"))
            continue
        old[flag] = (origin, text)
        if text:
            given[name] = old[flag]
    rev = old["rev"]
    branch = old["branch"]
    is_rev = rev[1] not in ("", "HEAD")
    if branch[1] == CHART_REF and (is_rev or new[1] not in ("", CHART_REF)):
        given["ref"] = rev if is_rev else new
    elif branch[1] and is_rev:
        said = f"and {rev[0]}={rev[1]} exclude each other: unset one of them"
        problems.append(Problem(*branch, said))


def _check(values: Mapping[str, Any]) -> Iterator[Problem]:
    """
    Yield what is missing or dangerous in what git-sync does not see.
    """
    repo = values.get("repo", "")
    ref = values.get("ref", "")
    if ref.startswith("-"):
        yield Problem("GITSYNC_REF", ref, "is no ref: git would read a flag")
    if not repo:
        yield Problem("GITSYNC_REPO", "", "is missing: the repository's URL")
    elif not _is_safe(repo):
        allowed = (
            "is not https://USER:TOKEN@HOST/PATH without a query, with / as %2F and @ as %40 in "
            "the token; or set GITSYNC_USERNAME and GITSYNC_PASSWORD"
        )
        yield Problem("GITSYNC_REPO", "***", allowed)


def _is_safe(repo: str) -> bool:
    """
    Whether a repository cannot expose a password: git and its errors show the whole
    URL. No server finds a token in a query, because git appends its own path to it.
    """
    if "://" not in repo:
        return _NO_URL.match(repo) is not None
    url = split_url(repo)
    # An apparent path may be the end of a password: https://me:1234/rest@host/repo.
    if url.scheme in ("http", "https", ""):
        return not url.query and "@" not in f"{url.path}{url.fragment}"
    return not url.password


def _take_login_from_url(values: dict[str, Any]) -> None:
    """
    Move user and password out of the repository's URL, as git-sync does.
    """
    url = split_url(values["repo"])
    userinfo, at, host = url.netloc.rpartition("@")
    if at and url.scheme in ("http", "https"):
        username, _, password = userinfo.partition(":")
        values["repo"] = url._replace(netloc=host).geturl()
        values.setdefault("username", unquote(username))
        values.setdefault("password", unquote(password))


def _complete(values: dict[str, Any]) -> None:
    """
    Make paths absolute, as git-sync does, and fill in defaults that depend on other
    flags.
    """
    values.setdefault("init_max_failures", values.get("max_failures", 0))
    root = values["root"] = os.path.realpath(values.get("root", "/git"))
    values.setdefault("link", values["repo"].strip("/").split("/")[-1])
    for field in ("link", "touch_file", "error_file"):
        path = values.get(field)
        if path:
            values[field] = os.path.normpath(os.path.join(root, path))
    if FULL_COMMIT.fullmatch(commit := values.get("ref", "").lower()):
        values["ref"] = commit  # git accepts both cases, and prints lower case


def split_url(repo: str) -> SplitResult:
    """
    Split a URL; one that is invalid is all path, because git will report it.
    """
    try:
        return urlsplit(repo)
    except ValueError:
        return SplitResult("", "", repo, "", "")
