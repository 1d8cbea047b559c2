"""
Check flags: report those that are missing, out of range, or contradict another flag.

The rules are git-sync's own (``main.go`` at v4.7.1). git-sync would exit with a usage text of two
screens; here each problem is reported in one line.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from git_sync_wrapper.flags.read import FlagValues
from git_sync_wrapper.flags.table import OLD_BY_NAME
from sidecar_runtime.errors import Problem

SHORTEST_SECONDS = 0.01
SUBMODULES = ("recursive", "shallow", "off")
GIT_GC = ("auto", "always", "aggressive", "off")
# A text with an @ that is not git@host:path, a path or helper::address is a URL without https://.
_NO_URL = re.compile(r"[^:/]+@[^/]+:|\.{0,2}/|\w+::|[^@]*$")


def check_options(given: FlagValues, *, has_username: bool, has_password: bool) -> None:
    """
    Add all problems to `given`.

    Args:
        has_username: Whether our own settings provide the user name: `--username` is not needed.
        has_password: Whether our own settings provide the password.
    """
    _check_ref(given)
    _check_login(given, has_username=has_username, has_password=has_password)
    for rule in (_check_required, _check_repo, _check_numbers, _check_hooks, _check_github):
        rule(given)


def _check_required(given: FlagValues) -> None:
    if not given.texts.get("repo"):
        given.refuse("repo", "is missing: set GITSYNC_REPO")
    if given.values.get("http-bind"):
        return
    for name in ("http-metrics", "http-pprof"):
        if given.values.get(name):
            given.refuse(name, "needs --http-bind (GITSYNC_HTTP_BIND)")


def _check_repo(given: FlagValues) -> None:
    """
    Refuse a URL that could expose a password: git and its errors show the whole URL.
    """
    repo = given.values.get("repo", "")
    scheme, is_url, _ = repo.lower().partition("://")
    if scheme not in ("http", "https", "ssh"):
        if not is_url and not _NO_URL.match(repo):
            allowed = "is not a URL: use https://USER:PASSWORD@HOST/PATH, or USER@HOST:PATH for ssh"
            given.problems.append(Problem(given.origins["repo"], "***", allowed))
        elif split_url(repo).password:
            given.refuse("repo", "contains a password, which only https and http accept")
        return
    try:
        url = urlsplit(repo)
        _ = url.port
        # An apparent path may be the end of a password: https://me:1234/rest@host/repo.
        is_plain = "@" not in f"{url.path}{url.query}{url.fragment}"
    except ValueError:
        is_plain = False
    if not is_plain:
        given.refuse(
            "repo",
            "is not a valid URL: in the password write / as %2F, : as %3A, @ as %40, [ as %5B, "
            "# as %23, ? as %3F; in the path write @ as %40",
        )
        return
    if url.scheme == "ssh" and url.password:
        given.refuse("repo", "contains a password, which ssh does not accept: use --ssh-key-file")


def _check_ref(given: FlagValues) -> None:
    """
    Refuse a branch and a revision of git-sync 3 together, unless the new name is set as well.
    """
    branch = ("--branch", *OLD_BY_NAME["branch"].variables)
    revision = ("--rev", *OLD_BY_NAME["rev"].variables)
    for loser, winner in given.overridden:
        if loser in branch and winner in revision:
            given.refuse("ref", f"contradicts {loser}: set GITSYNC_REF instead of both")


def _check_numbers(given: FlagValues) -> None:
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


def _check_hooks(given: FlagValues) -> None:
    hooks = {"exechook": "command", "pre-publish-exechook": "command", "webhook": "url"}
    for hook, what in hooks.items():
        if not given.values.get(f"{hook}-{what}"):
            continue
        for name in (f"{hook}-timeout", f"{hook}-backoff"):
            if given.values.get(name, 1) < 1:
                given.refuse(name, "is less than 1s")
    if not given.values.get("webhook-url", "https:").startswith(("http:", "https:")):
        given.refuse("webhook-url", "is not an http or https URL")
    if given.values.get("webhook-success-status", 0) < -1:
        given.refuse("webhook-success-status", "is neither an HTTP status nor 0 (any status)")


def _check_login(given: FlagValues, *, has_username: bool, has_password: bool) -> None:
    get = given.values.get
    if get("username"):
        if not get("password") and not get("password-file") and not has_password:
            given.refuse("username", "needs GITSYNC_PASSWORD or --password-file")
        if userinfo_of(get("repo", "")):
            given.refuse("repo", "contains a user, and --username is set: use only one of them")
    if get("password") and get("password-file"):
        given.refuse("password-file", "replaces GITSYNC_PASSWORD: set only one of them")
    for name in ("password", "password-file"):
        if get(name) and not get("username") and not has_username:
            given.refuse(name, "needs --username (GITSYNC_USERNAME)")


def _check_github(given: FlagValues) -> None:
    get = given.values.get
    app, client = "github-app-application-id", "github-app-client-id"
    key, key_file = "github-app-private-key", "github-app-private-key-file"
    if not get(app) and not get(client):
        if get("github-app-installation-id"):
            given.refuse("github-app-installation-id", f"needs --{app} or --{client}")
        return
    if get(app) and get(client):
        given.refuse(client, f"replaces --{app}: set only one of them")
    if not get("github-app-installation-id"):
        given.refuse("github-app-installation-id", f"is missing: --{app} and --{client} need it")
    if bool(get(key)) == bool(get(key_file)):
        given.refuse(key_file, "or GITSYNC_GITHUB_APP_PRIVATE_KEY is required, but not both")
    for name in ("username", "password", "password-file"):
        if get(name):
            given.refuse(name, "cannot be combined with a GitHub App: configure only one login")


def userinfo_of(repo: str) -> str:
    """
    Return the user, and the password after a colon, in an http(s) URL; empty if it has none.
    """
    url = split_url(repo)
    return url.netloc.rpartition("@")[0] if url.scheme in ("http", "https") else ""


def split_url(repo: str) -> SplitResult:
    try:
        return urlsplit(repo)
    except ValueError:  # it contains "["; git will report it
        return SplitResult("", "", repo, "", "")
