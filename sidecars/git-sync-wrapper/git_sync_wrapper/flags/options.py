"""
git-sync's flags and variables as one frozen object.

:mod:`git_sync_wrapper.flags.rules` checks values and combinations.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import unquote, urlunsplit

from git_sync_wrapper.flags.go_values import GivenCredential, duration
from git_sync_wrapper.flags.read import FlagValues, read_flags
from git_sync_wrapper.flags.rules import check_options, split_url, userinfo_of
from git_sync_wrapper.flags.table import BY_NAME
from sidecar_runtime.errors import SettingsError
from sidecar_runtime.logs import get_logger

FULL_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
ROOT = "/git"
"""The root in git-sync's own image, and the chart's mount path of the volume."""
_FIELDS = {"credential": "credentials", "ssh-key-file": "ssh_key_files"}

log = get_logger("settings")


@dataclass(frozen=True, kw_only=True, repr=False)
class Options:
    """
    The flags of git-sync 4 that the wrapper uses, with git-sync's defaults. Paths are absolute, and
    `repo` contains no password.

    Args:
        texts: The text of each flag that is set, by flag name: the child gets them as variables.
        overridden: Names that another name overrides, each with the winner.
        ignored: Arguments that are not flags; they can contain anything, even a password.
        max_failures: As git-sync counts them; negative: retry indefinitely.
        sync_signal: The signal that triggers a sync; None if none is set.
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
    github_app_private_key_file: str = ""
    github_app_client_id: str = ""
    github_app_application_id: int = 0
    git: str = "git"
    git_config: tuple[tuple[str, str], ...] = ()
    git_config_add: tuple[tuple[str, str], ...] = ()
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
    def configs(self) -> tuple[tuple[str, str], ...]:
        """
        Additional git configurations: pairs of key and value; a key may have several values.
        """
        return (*self.git_config, *self.git_config_add)

    @property
    def shown_repo(self) -> str:
        """
        The repository for display: without its query, which may contain a token.
        """
        return self.hide(self.repo)

    @property
    def source(self) -> str:
        """
        Repository and ref for display.
        """
        return f"{self.shown_repo} {self.ref}"

    def hide(self, text: str) -> str:
        """
        Remove the query of the repository's URL from a text that may quote it.
        """
        if not (query := split_url(self.repo).query):
            return text
        return text.replace(query, "…").replace(_as_go_writes(query), "…")

    @property
    def is_github_app(self) -> bool:
        return bool(self.github_app_client_id or self.github_app_application_id)

    @property
    def failures_before_first(self) -> int:
        """
        How many failures before the first publication end the process; negative: no limit.
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
        has_username: Whether our own settings provide the user name: `--username` is not needed.
        has_password: Whether our own settings provide the password.

    Raises:
        SettingsError: One or more are invalid; it lists all of them, by the names that were used.
    """
    given = read_flags(arguments, environ)
    values = dict(given.values)
    check_options(given, has_username=has_username, has_password=has_password)
    sync_signal = _signal(given)
    if given.problems:
        raise SettingsError(given.problems)
    _take_login_from_url(values)
    root = os.path.realpath(values.get("root", ROOT))
    values["root"] = root
    # The query of the URL may contain a secret; the link's name is public.
    link = values.get("link") or values["repo"].partition("?")[0].strip("/").split("/")[-1]
    values["link"] = _beneath(root, link)
    for name in ("touch-file", "error-file"):
        values[name] = _beneath(root, values.get(name, ""))
    values["init-period"] = values.get("init-period") or values.get("period", 10.0)
    if FULL_COMMIT.fullmatch(commit := values.get("ref", "").lower()):
        values["ref"] = commit  # git accepts both cases, and prints lower case
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
    Return the name of the field for a flag.
    """
    name = _FIELDS.get(flag, flag.replace("-", "_"))
    return f"{name}_seconds" if BY_NAME[flag].parse is duration else name


def _beneath(root: str, path: str) -> str:
    return os.path.normpath(os.path.join(root, path)) if path else ""


def _signal(given: FlagValues) -> signal.Signals | None:
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
    given.refuse("sync-on-signal", "is not a signal that can trigger a sync, such as SIGHUP")
    return None


def _take_login_from_url(values: dict[str, Any]) -> None:
    """
    Move user and password out of the repository's URL, as git-sync does.
    """
    if not (userinfo := userinfo_of(values["repo"])):
        return
    url = split_url(values["repo"])
    username, _, password = userinfo.partition(":")
    host = url.netloc.rpartition("@")[2]
    values["repo"] = urlunsplit((url.scheme, host, url.path, url.query, url.fragment))
    values.setdefault("username", unquote(username))
    values.setdefault("password", unquote(password))


def _as_go_writes(text: str) -> str:
    """
    Return a text in the form that it has in git-sync's JSON.
    """
    return json.dumps(text)[1:-1].translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"})
