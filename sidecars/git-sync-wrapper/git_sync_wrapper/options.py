"""
The settings of git-sync that the wrapper must know, from flags and variables in every spelling.

All others reach git-sync unread, and it checks them itself. In git-sync 4 an old name overrides the
new one (kubernetes/git-sync, since 4.4); here the new name wins, unless only the official chart's
default sets it. As in git-sync, a flag overrides every variable, and empty counts as unset.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.parsers import boolean, duration
from sidecar_runtime.settings import without_password

OURS = "GIT_SYNC_WRAPPER_"
FULL_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# What `dags.gitSync.branch` and `.ref` are if their user sets neither (official chart, from 1.13.1
# to 1.22.0 at least); the chart always sets both variables.
CHART_REF = "v2-2-stable"
HIDDEN_FLAG = "__env__"
# The query of a URL may contain a token.
_QUERY = re.compile(r"(?<=//)([^?]*\?).*")
_TEXT = r'"((?:\\.|[^"\\])*)"'
_CONFIG = re.compile(rf'(?:{_TEXT}|([^":][^:]*)):(?:{_TEXT}|((?:\\.|[^,\\])+))(?:,|$)')
_ESCAPES = {"\\": "\\", '"': '"', "n": "\n", "t": "\t", ",": ","}


class Login(NamedTuple):
    """
    A user and a password for the URLs that begin with this one.
    """

    url: str
    username: str
    password: str = ""
    password_file: str = ""


# --- values


def logins(text: str) -> tuple[Login, ...]:
    """
    Read the JSON of ``--credential``: an object, or a list of objects.
    """
    try:
        found = json.loads(text)
        items = found if isinstance(found, list) else [found]
        fields = [{key.replace("-", "_"): str(item[key]) for key in item} for item in items]
        return tuple(Login(**item) for item in fields)
    except (ValueError, TypeError):
        raise ValueError("is not JSON with url, username, and password or password-file") from None


def configs(text: str) -> tuple[tuple[str, str], ...]:
    """
    Read ``section.key:value,"section.sub.key":"value"``; a backslash escapes special characters.
    """
    found, start = [], 0
    while start < len(text):
        match = _CONFIG.match(text, start)
        if match is None:
            raise ValueError('is not KEY:VALUE[,KEY:VALUE...]; a value may be in "quotes"')
        key = match[2] if match[1] is None else _plain(match[1])
        found.append((key, _plain(match[4] if match[3] is None else match[3])))
        start = match.end()
    return tuple(found)


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), text)


def whole(text: str) -> int:
    """
    Read a whole number.
    """
    try:
        return int(text)
    except ValueError:
        raise ValueError("is not a whole number") from None


def signal_name(text: str) -> signal.Signals:
    """
    Read the name (``SIGHUP``, ``HUP``) or number of a signal that can trigger a sync.
    """
    name = f"SIG{text.removeprefix('SIG')}"
    with suppress(ValueError):
        found = (
            signal.Signals(int(text)) if text.isdigit() else signal.Signals.__members__.get(name)
        )
        if found not in (None, signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT):
            return signal.Signals(found)
    raise ValueError("is not a signal that can trigger a sync, such as SIGHUP")


def _paths(text: str) -> tuple[str, ...]:
    return tuple(text.split(":"))


_seconds = duration()


class Flag(NamedTuple):
    """
    A flag that the wrapper reads.

    Args:
        is_passed: Whether git-sync gets it as well; the others are the wrapper's own affair.
        also: Its variables besides ``GITSYNC_NAME`` and ``GIT_SYNC_NAME``.
        separator: Joins its values if the flag is repeated.
    """

    parse: Callable[[str], Any] = str
    is_passed: bool = False
    is_secret: bool = False
    also: tuple[str, ...] = ()
    separator: str = ""


# Source: git-sync's main.go and env.go at v4.7.1 and on its main branch (2026-10).
_PASSED = Flag(is_passed=True)
_HOOK = {"timeout": Flag(_seconds), "backoff": Flag(_seconds)}
FLAGS = {
    "repo": Flag(),
    "ref": Flag(),
    "root": Flag(),
    "link": Flag(),
    "depth": _PASSED,
    "filter": _PASSED,
    "submodules": _PASSED,
    "sparse-checkout-file": _PASSED,
    "group-write": Flag(boolean, is_passed=True),
    "git": _PASSED,
    "git-config": Flag(configs, is_secret=True),  # it may hold http.extraHeader
    "git-config-add": Flag(configs, is_secret=True, separator=","),
    "period": Flag(_seconds),
    "init-period": Flag(_seconds),
    "sync-timeout": Flag(_seconds, is_passed=True),
    "one-time": Flag(boolean),
    "sync-on-signal": Flag(signal_name),
    "max-failures": Flag(whole),
    "init-max-failures": Flag(whole),
    "stale-worktree-timeout": Flag(_seconds),
    "add-user": Flag(boolean),
    "error-file": Flag(),
    "touch-file": Flag(),
    "exechook-command": Flag(),
    "pre-publish-exechook-command": Flag(),
    "webhook-url": Flag(is_secret=True),  # some have a token in their path
    "webhook-method": Flag(),
    "webhook-success-status": Flag(whole),
    **{
        f"{hook}-{name}": flag
        for hook in ("exechook", "pre-publish-exechook", "webhook")
        for name, flag in _HOOK.items()
    },
    "username": Flag(),
    "password": Flag(is_secret=True),
    "password-file": Flag(),
    "credential": Flag(logins, is_secret=True, separator=","),
    "askpass-url": Flag(also=("GIT_ASKPASS_URL",)),
    "ssh-key-file": Flag(_paths, also=("GIT_SSH_KEY_FILE",), separator=":"),
    "ssh-known-hosts": Flag(boolean, True, also=("GIT_SYNC_KNOWN_HOSTS", "GIT_KNOWN_HOSTS")),
    "ssh-known-hosts-file": Flag(also=("GIT_SSH_KNOWN_HOSTS_FILE",)),
    "cookie-file": Flag(boolean, is_passed=True, also=("GIT_COOKIE_FILE",)),
    "github-app-client-id": _PASSED,
    "github-app-application-id": _PASSED,
    "http-bind": Flag(),
    "http-metrics": Flag(boolean),
    "http-pprof": Flag(boolean),
}


def _in_seconds(text: str) -> str:
    milliseconds = int(float(text) * 1000)
    return f"{milliseconds}ms" if milliseconds else ""


class Old(NamedTuple):
    """
    A name of git-sync 3: the flag that it sets, and how its text becomes the new one.
    """

    flag: str
    variable: str
    convert: Callable[[str], str] = str


OLD = {
    "rev": Old("ref", "GIT_SYNC_REV", lambda text: "" if text == "HEAD" else text),
    "branch": Old("ref", "GIT_SYNC_BRANCH"),
    "dest": Old("link", "GIT_SYNC_DEST"),
    "wait": Old("period", "GIT_SYNC_WAIT", _in_seconds),
    "timeout": Old("sync-timeout", "GIT_SYNC_TIMEOUT", _in_seconds),
    "max-sync-failures": Old(
        "max-failures", "GIT_SYNC_MAX_SYNC_FAILURES", lambda text: str(whole(text) or "")
    ),
    "sync-hook-command": Old("exechook-command", "GIT_SYNC_HOOK_COMMAND"),
}


def variables(name: str) -> tuple[str, ...]:
    """
    Return the variables of a flag, the one that wins first.
    """
    base = name.upper().replace("-", "_")
    return (f"GITSYNC_{base}", f"GIT_SYNC_{base}", *FLAGS[name].also)


# --- flags and variables


@dataclass(frozen=True, kw_only=True, repr=False)
class Options:
    """
    What git-sync was told, with git-sync's defaults. Paths are absolute.

    Args:
        arguments: The arguments that git-sync gets.
        taken: The variables that git-sync does not get, because the wrapper acts on them.
        repo: The repository's URL, without user and password.
        max_failures: As git-sync counts them; negative: retry indefinitely.
    """

    arguments: tuple[str, ...]
    taken: frozenset[str]
    repo: str
    root: str
    link: str
    ref: str = "HEAD"
    depth: str = ""
    filter: str = ""
    submodules: str = ""
    sparse_checkout_file: str = ""
    group_write: bool = False
    git: str = "git"
    git_config: tuple[tuple[str, str], ...] = ()
    git_config_add: tuple[tuple[str, str], ...] = ()
    period: float = 10.0
    init_period: float | None = None
    sync_timeout: float = 120.0
    one_time: bool = False
    sync_on_signal: signal.Signals | None = None
    max_failures: int = 0
    init_max_failures: int | None = None
    stale_worktree_timeout: float = 0.0
    add_user: bool = False
    error_file: str = ""
    touch_file: str = ""
    exechook_command: str = ""
    exechook_timeout: float = 30.0
    exechook_backoff: float = 3.0
    pre_publish_exechook_command: str = ""
    pre_publish_exechook_timeout: float = 30.0
    pre_publish_exechook_backoff: float = 3.0
    webhook_url: str = ""
    webhook_method: str = "POST"
    webhook_success_status: int = 200
    webhook_timeout: float = 1.0
    webhook_backoff: float = 3.0
    username: str = ""
    password: str = ""
    password_file: str = ""
    credential: tuple[Login, ...] = ()
    askpass_url: str = ""
    ssh_key_file: tuple[str, ...] = ("/etc/git-secret/ssh",)
    ssh_known_hosts: bool = True
    ssh_known_hosts_file: str = "/etc/git-secret/known_hosts"
    cookie_file: bool = False
    github_app_client_id: str = ""
    github_app_application_id: str = ""
    http_bind: str = ""
    http_metrics: bool = False
    http_pprof: bool = False

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
        return f"{self.hide(self.repo)} {self.ref}"

    def hide(self, text: str) -> str:
        """
        Remove the query of the repository's URL, which may contain a token, from a text.
        """
        if not (query := split_url(self.repo).query):
            return text
        as_go_writes = json.dumps(query)[1:-1].translate(
            {ord(c): f"\\u{ord(c):04x}" for c in "<>&"}
        )
        return text.replace(query, "…").replace(as_go_writes, "…")

    def made_by(self) -> str:
        """
        Return a digest of the settings that affect the files and the history of a commit.
        """
        facts = [self.repo, self.depth, self.filter, self.submodules, self.group_write]
        digest = hashlib.sha256(json.dumps(facts).encode())
        if self.sparse_checkout_file:
            with suppress(OSError), open(self.sparse_checkout_file, "rb") as file:
                digest.update(file.read())
        return digest.hexdigest()[:16]


def read_options(arguments: Sequence[str], environ: Mapping[str, str]) -> Options:
    """
    Read git-sync's flags and variables.

    Raises:
        SettingsError: One or more are invalid; it lists all of them, by the names that were used.
    """
    problems: list[Problem] = []
    line, rest = _read_line(arguments, problems)
    values: dict[str, Any] = {}
    for name, flag in FLAGS.items():
        found = list(_candidates(name, line, environ, problems))
        if name == "ref":
            found = [one for one in found if one[0][0] == "-" or one[1] != CHART_REF] or found[:1]
        if found:
            origin, text = found[0]
            try:
                values[name.replace("-", "_")] = flag.parse(text)
            except ValueError as error:
                shown = "***" if flag.is_secret else _QUERY.sub(r"\1***", without_password(text))
                problems.append(Problem(origin, shown, str(error)))
    problems += _check(values)
    if problems:
        raise SettingsError(problems)
    _take_login_from_url(values)
    _complete(values)
    taken = {v for name, flag in FLAGS.items() if not flag.is_passed for v in variables(name)}
    taken |= {old.variable for old in OLD.values()}
    return Options(arguments=tuple(rest), taken=frozenset(taken), **values)


def _read_line(
    arguments: Sequence[str], problems: list[Problem]
) -> tuple[dict[str, list[str]], list[str]]:
    """
    Return the values of our flags, ``--flag=value`` or ``--flag value``, and all that git-sync gets.
    """
    hidden = {f"{HIDDEN_FLAG}{variables(name)[0]}": name for name in FLAGS}
    found: dict[str, list[str]] = {}
    rest = []
    words = iter(arguments)
    for word in words:
        name, has_value, value = word.removeprefix("--").partition("=")
        name = hidden.get(name, name)
        if not word.startswith("--") or name not in FLAGS.keys() | OLD.keys():
            rest.append(word)
            continue
        flag = FLAGS.get(name, Flag())
        if not has_value:
            given = "true" if flag.parse is boolean else next(words, None)
            if given is None:
                problems.append(Problem(f"--{name}", "", "needs a value"))
                continue
            value = given
        found.setdefault(name, []).append(value)
        if flag.is_passed:
            rest.append(f"--{name}={value}")
    return found, rest


def _candidates(
    name: str,
    line: Mapping[str, Sequence[str]],
    environ: Mapping[str, str],
    problems: list[Problem],
) -> Iterator[tuple[str, str]]:
    """
    Yield the names that set a flag, the winner first, each with its text.
    """
    separator = FLAGS[name].separator
    if items := [item for item in line.get(name, ()) if item]:
        if name == "credential":  # objects and lists of objects become one list
            inner = (item.strip().removeprefix("[").removesuffix("]") for item in items)
            items = [f"[{','.join(filter(None, inner))}]"]
        yield f"--{name}", separator.join(items) if separator else items[-1]
    olds = [(key, old) for key, old in OLD.items() if old.flag == name]
    given = [(f"--{key}", line.get(key, [""])[-1], old.convert) for key, old in olds]
    given += [(variable, environ.get(variable, ""), str) for variable in variables(name)]
    given += [(old.variable, environ.get(old.variable, ""), old.convert) for _, old in olds]
    for origin, text, convert in given:
        try:
            if text and (converted := convert(text)):
                yield origin, converted
        except ValueError as error:
            problems.append(Problem(origin, text, str(error)))


def _check(values: Mapping[str, Any]) -> Iterator[Problem]:
    """
    Yield what is missing or contradictory in what git-sync does not see.
    """
    repo = values.get("repo", "")
    if not repo:
        yield Problem("GITSYNC_REPO", "", "is missing: the repository's URL")
    url = split_url(repo)
    if url.scheme in ("http", "https") and "@" in f"{url.path}{url.query}{url.fragment}":
        # What looks like a path may be the end of a password: https://me:1234/rest@host/repo.
        yield Problem("GITSYNC_REPO", "***", "is not a valid URL: in a password write / as %2F")
    elif url.scheme not in ("http", "https") and url.password:
        yield Problem("GITSYNC_REPO", "***", "contains a password, which only https accepts")
    elif "://" not in repo and re.match(r"[^/@]+:[^/@]+@", repo):
        yield Problem("GITSYNC_REPO", "***", "is not a URL: write https://USER:PASSWORD@HOST/PATH")
    if values.get("password") and values.get("password_file"):
        yield Problem("GITSYNC_PASSWORD_FILE", None, "replaces GITSYNC_PASSWORD: set only one")
    if values.get("http_metrics") and not values.get("http_bind"):
        yield Problem("GITSYNC_HTTP_METRICS", None, "needs GITSYNC_HTTP_BIND")


def _take_login_from_url(values: dict[str, Any]) -> None:
    """
    Move user and password out of the repository's URL, as git-sync does.
    """
    url = split_url(values["repo"])
    userinfo, at, host = url.netloc.rpartition("@")
    if at and url.scheme in ("http", "https"):
        username, _, password = userinfo.partition(":")
        values["repo"] = urlunsplit((url.scheme, host, url.path, url.query, url.fragment))
        values.setdefault("username", unquote(username))
        values.setdefault("password", unquote(password))


def _complete(values: dict[str, Any]) -> None:
    """
    Make paths absolute, as git-sync does.
    """
    root = values["root"] = os.path.realpath(values.get("root", "/git"))
    # The query of the URL may contain a secret; the link's name is public.
    link = values.get("link") or values["repo"].partition("?")[0].strip("/").split("/")[-1]
    for name, path in (("link", link), *((n, values.get(n)) for n in ("touch_file", "error_file"))):
        if path:
            values[name] = os.path.normpath(os.path.join(root, path))
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
