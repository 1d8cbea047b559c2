"""
What git-sync is asked to do: its flags and variables as one frozen object.

The rules across flags are those of git-sync's ``main.go`` at v4.7.1; where it would end with a
usage text of two screens, all that is wrong is told in one line each.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from git_sync_wrapper.flags import BY_NAME, OLD_BY_NAME, Given, read_flags
from git_sync_wrapper.go_values import GivenCredential, duration
from sidecar_runtime.errors import SettingsError
from sidecar_runtime.logs import get_logger

FULL_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
SHORTEST_SECONDS = 0.01
ROOT = "/git"
"""What git-sync's own image sets, and where the chart mounts the volume."""
SUBMODULES = ("recursive", "shallow", "off")
_FIELDS = {"credential": "credentials", "ssh-key-file": "ssh_key_files"}
GIT_GC = ("auto", "always", "aggressive", "off")

log = get_logger("settings")


@dataclass(frozen=True, kw_only=True, repr=False)
class Options:
    """
    The flags of git-sync 4, with its defaults; paths are absolute, `repo` carries no password.

    Args:
        texts: What is set, as variables of the child: a flag's name to its text.
        overridden: Names that another one beat, with the winner.
        ignored: Arguments that are no flags; they may be anything, a password too.
        max_failures: As git-sync counts them; negative: retry for ever.
        sync_signal: What asks for a sync; None where nothing does.
    """

    texts: Mapping[str, str]
    overridden: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]
    repo: str
    root: str
    link: str
    ref: str = "HEAD"
    depth: int = 1
    filter: str = ""
    submodules: str = "recursive"
    sparse_checkout_file: str = ""
    error_file: str = ""
    period_seconds: float = 10.0
    init_period_seconds: float = 0.0
    sync_timeout_seconds: float = 120.0
    one_time: bool = False
    sync_signal: signal.Signals | None = None
    max_failures: int = 0
    init_max_failures: int | None = None
    touch_file: str = ""
    group_write: bool = False
    stale_worktree_timeout_seconds: float = 0.0
    exechook_command: str = ""
    exechook_timeout_seconds: float = 30.0
    exechook_backoff_seconds: float = 3.0
    pre_publish_exechook_command: str = ""
    pre_publish_exechook_timeout_seconds: float = 30.0
    pre_publish_exechook_backoff_seconds: float = 3.0
    webhook_url: str = ""
    webhook_method: str = "POST"
    webhook_success_status: int = 200
    webhook_timeout_seconds: float = 1.0
    webhook_backoff_seconds: float = 3.0
    username: str = ""
    password: str = ""
    password_file: str = ""
    credentials: tuple[GivenCredential, ...] = ()
    ssh_key_files: tuple[str, ...] = ("/etc/git-secret/ssh",)
    ssh_known_hosts: bool = True
    ssh_known_hosts_file: str = "/etc/git-secret/known_hosts"
    cookie_file: bool = False
    askpass_url: str = ""
    github_base_url: str = "https://api.github.com/"
    github_app_private_key: str = ""
    github_app_private_key_file: str = ""
    github_app_client_id: str = ""
    github_app_application_id: int = 0
    github_app_installation_id: int = 0
    git: str = "git"
    git_config: tuple[tuple[str, str], ...] = ()
    git_config_add: tuple[tuple[str, str], ...] = ()
    git_gc: str = "always"
    http_bind: str = ""
    http_metrics: bool = False
    http_pprof: bool = False

    @property
    def is_pinned(self) -> bool:
        """
        Whether the ref is a commit, which never moves.
        """
        return FULL_COMMIT.fullmatch(self.ref) is not None

    @property
    def is_github_app(self) -> bool:
        return bool(self.github_app_client_id or self.github_app_application_id)

    @property
    def failures_before_first(self) -> int:
        """
        How many failures before anything is published end the process; negative: none do.
        """
        return self.max_failures if self.init_max_failures is None else self.init_max_failures


def read_options(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    has_username: bool = False,
    has_password: bool = False,
) -> Options:
    """
    Read git-sync's flags and variables.

    Args:
        has_username: A setting of ours tells who logs in, so `--username` is not needed.
        has_password: The same of the password.

    Raises:
        SettingsError: One or more are wrong; all of them are named as they were given.
    """
    given = read_flags(arguments, environ)
    values = dict(given.values)
    _check_ref(given)
    _check_login(given, has_username=has_username, has_password=has_password)
    for rule in (_check_required, _check_repo, _check_numbers, _check_hooks, _check_github):
        rule(given)
    sync_signal = _signal(given)
    if given.problems:
        raise SettingsError(given.problems)
    _take_login_from_url(values)
    root = os.path.realpath(values.get("root", ROOT))
    values["root"] = root
    link = values.get("link") or values["repo"].strip("/").split("/")[-1]
    values["link"] = _beneath(root, link)
    for name in ("touch-file", "error-file"):
        values[name] = _beneath(root, values.get(name, ""))
    values["init-period"] = values.get("init-period") or values.get("period", 10.0)
    known = {field.name for field in fields(Options)}
    named = {_field_of(name): value for name, value in values.items()}
    return Options(
        texts=given.texts,
        overridden=tuple(given.overridden),
        ignored=tuple(given.ignored),
        sync_signal=sync_signal,
        **{name: value for name, value in named.items() if name in known},
    )


def _field_of(flag: str) -> str:
    """
    Return the field that holds a flag.
    """
    name = _FIELDS.get(flag, flag.replace("-", "_"))
    return f"{name}_seconds" if BY_NAME[flag].parse is duration else name


def _beneath(root: str, path: str) -> str:
    return os.path.normpath(os.path.join(root, path)) if path else ""


def _check_required(given: Given) -> None:
    if not given.texts.get("repo"):
        given.refuse("repo", "is missing: set GITSYNC_REPO")
    if given.values.get("http-bind"):
        return
    for name in ("http-metrics", "http-pprof"):
        if given.values.get(name):
            given.refuse(name, "needs --http-bind (GITSYNC_HTTP_BIND)")


def _check_repo(given: Given) -> None:
    """
    Refuse what would show a password: git and its errors have the whole URL.
    """
    repo = given.values.get("repo", "")
    if not repo.startswith(("http://", "https://", "ssh://")):
        return
    try:
        url = urlsplit(repo)
        _ = url.port
        # What looks like a path may be the end of a password: https://me:1234/rest@host/repo.
        is_plain = "@" not in f"{url.path}{url.query}{url.fragment}"
    except ValueError:
        is_plain = False
    if not is_plain:
        given.refuse(
            "repo",
            "is no URL: in a password / is written %2F, : %3A, @ %40, [ %5B, # %23, ? %3F; "
            "and so is an @ of the path",
        )
        return
    if url.scheme == "ssh" and url.password:
        given.refuse("repo", "has a password, and ssh takes none: use --ssh-key-file")


def _check_ref(given: Given) -> None:
    """
    Refuse a branch and a revision of git-sync 3 together, unless the new name settles it.
    """
    branch = ("--branch", *OLD_BY_NAME["branch"].variables)
    revision = ("--rev", *OLD_BY_NAME["rev"].variables)
    for loser, winner in given.overridden:
        if loser in branch and winner in revision:
            given.refuse("ref", f"contradicts {loser}: use GITSYNC_REF instead of both")


def _check_numbers(given: Given) -> None:
    at_least: dict[str, float] = {"period": SHORTEST_SECONDS, "sync-timeout": SHORTEST_SECONDS}
    if given.values.get("init-period"):
        at_least["init-period"] = SHORTEST_SECONDS
    at_least["depth"] = 0
    for name, least in at_least.items():
        if given.values.get(name, least) < least:
            given.refuse(name, f"is less than {least:g}")
    for name, allowed in {"submodules": SUBMODULES, "git-gc": GIT_GC}.items():
        if given.values.get(name, allowed[0]) not in allowed:
            given.refuse(name, f"is not one of {', '.join(allowed)}")


def _check_hooks(given: Given) -> None:
    hooks = {"exechook": "command", "pre-publish-exechook": "command", "webhook": "url"}
    for hook, what in hooks.items():
        if not given.values.get(f"{hook}-{what}"):
            continue
        for name in (f"{hook}-timeout", f"{hook}-backoff"):
            if given.values.get(name, 1) < 1:
                given.refuse(name, "is less than 1s")
    if not given.values.get("webhook-url", "https:").startswith(("http:", "https:")):
        given.refuse("webhook-url", "is no URL of http or https")
    if given.values.get("webhook-success-status", 0) < -1:
        given.refuse("webhook-success-status", "is no HTTP status, nor 0 for any")


def _check_login(given: Given, *, has_username: bool, has_password: bool) -> None:
    get = given.values.get
    if get("username"):
        if not get("password") and not get("password-file") and not has_password:
            given.refuse("username", "needs GITSYNC_PASSWORD or --password-file")
        if _userinfo(get("repo", "")):
            given.refuse("repo", "names a user, as --username does: only one of them may")
    if get("password") and get("password-file"):
        given.refuse("password-file", "goes without GITSYNC_PASSWORD: only one of them may be set")
    for name in ("password", "password-file"):
        if get(name) and not get("username") and not has_username:
            given.refuse(name, "needs --username (GITSYNC_USERNAME)")


def _check_github(given: Given) -> None:
    get = given.values.get
    app, client = "github-app-application-id", "github-app-client-id"
    key, key_file = "github-app-private-key", "github-app-private-key-file"
    if not get(app) and not get(client):
        if get("github-app-installation-id"):
            given.refuse("github-app-installation-id", f"needs --{app} or --{client}")
        return
    if get(app) and get(client):
        given.refuse(client, f"goes without --{app}: only one of them may be set")
    if not get("github-app-installation-id"):
        given.refuse("github-app-installation-id", f"is missing: --{app} and --{client} need it")
    if bool(get(key)) == bool(get(key_file)):
        given.refuse(key_file, "is needed, or GITSYNC_GITHUB_APP_PRIVATE_KEY, but not both")
    for name in ("username", "password", "password-file"):
        if get(name):
            given.refuse(name, "goes without a GitHub App: only one of them may log in")


def _signal(given: Given) -> signal.Signals | None:
    """
    Return the signal that a name (``SIGHUP``, ``HUP``) or a number means.
    """
    asked = given.values.get("sync-on-signal", "")
    if not asked:
        return None
    readers: list[Callable[[], signal.Signals]] = [
        lambda: signal.Signals(int(asked, 0)),
        lambda: signal.Signals[asked],
        lambda: signal.Signals[f"SIG{asked}"],
    ]
    for read in readers:
        try:
            found = read()
        except (KeyError, ValueError):
            continue
        if found not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT):
            return found
    given.refuse("sync-on-signal", "is no signal that can ask for a sync, such as SIGHUP")
    return None


def _userinfo(repo: str) -> str:
    """
    Return who logs in by a URL of http(s), with a password after a colon; empty where nobody does.
    """
    url = _split(repo)
    return url.netloc.rpartition("@")[0] if url.scheme in ("http", "https") else ""


def _split(repo: str) -> SplitResult:
    try:
        return urlsplit(repo)
    except ValueError:  # "[" in it; git will say what it thinks of that
        return SplitResult("", "", repo, "", "")


def _take_login_from_url(values: dict[str, Any]) -> None:
    """
    Move user and password out of the repository's URL, as git-sync does.
    """
    if not (userinfo := _userinfo(values["repo"])):
        return
    url = _split(values["repo"])
    username, _, password = userinfo.partition(":")
    host = url.netloc.rpartition("@")[2]
    values["repo"] = urlunsplit((url.scheme, host, url.path, url.query, url.fragment))
    values.setdefault("username", unquote(username))
    values.setdefault("password", unquote(password))
