"""
The flags after their interplay has been sorted out.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from log import Log


def duration_of_wait(text: str) -> float:
    """
    Version 3's wait: a number of seconds.
    """
    try:
        return float(text or 0)
    except ValueError:
        sys.exit(f"FATAL: can't parse $GIT_SYNC_WAIT: {text}")


class Settings:
    """
    The flags after their interplay has been sorted out.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        if not values["root"]:
            sys.exit("required flag: --root must be specified")
        self.root = Path(os.path.normpath(Path.cwd() / values["root"]))
        error_file = values["error-file"]
        self.log = log = Log(Path(os.path.normpath(self.root / error_file)) if error_file else None)
        if not values["repo"]:
            log.fatal("required flag: --repo must be specified")
        branch, rev = values["branch"], values["rev"]
        if branch and rev not in ("", "HEAD"):
            log.fatal("can't set --ref from deprecated --branch and --rev")
        self.ref = branch or rev or values["ref"]
        if not self.ref:
            log.fatal("required flag: --ref must be specified")
        if values["depth"] < 0:
            log.fatal("invalid flag: --depth must be greater than or equal to 0")
        if values["submodules"] not in ("recursive", "shallow", "off"):
            log.fatal("invalid flag: --submodules")
        if values["git-gc"] not in ("auto", "always", "aggressive", "off"):
            log.fatal("invalid flag: --git-gc")
        link = values["dest"] or values["link"] or values["repo"].strip("/").rpartition("/")[2]
        wait = duration_of_wait(values["wait"])
        self.period = wait or values["period"]
        self.init_period = values["init-period"] or self.period
        self.sync_timeout = values["timeout"] or values["sync-timeout"]
        if min(self.period, self.init_period, self.sync_timeout) < 0.01:
            log.fatal("invalid flag: --period, --init-period and --sync-timeout: at least 10ms")
        if values["change-permissions"]:
            log.fatal("deprecated flag: --change-permissions is no longer supported")
        self.signal = signal_of(values["sync-on-signal"], log)
        self.max_failures = values["max-sync-failures"] or values["max-failures"]
        self.exechook = values["sync-hook-command"] or values["exechook-command"]
        for hook, used in (("exechook", self.exechook), ("webhook", values["webhook-url"])):
            if used and min(values[f"{hook}-timeout"], values[f"{hook}-backoff"]) < 1:
                log.fatal(f"invalid flag: --{hook}-timeout and --{hook}-backoff: at least 1s")
        if values["http-metrics"] and not values["http-bind"]:
            log.fatal("required flag: --http-bind must be specified when --http-metrics is set")
        self.repo = values["repo"]
        self.credentials = self._credentials()
        os.umask(0o002 if values["group-write"] else 0o022)
        self.root.mkdir(parents=True, exist_ok=True)
        self.root = self.root.resolve()
        self.link = Path(os.path.normpath(self.root / link))
        touched = values["touch-file"]
        self.touch_file = Path(os.path.normpath(self.root / touched)) if touched else None

    def _credentials(self) -> list[dict[str, str]]:
        values, log = self.values, self.log
        username = values["username"]
        password = values["password"] or values["__env__GITSYNC_PASSWORD"]
        file = values["password-file"]
        parts = urlsplit(self.repo)
        if username and bool(password) == bool(file):
            log.fatal("one of $GITSYNC_PASSWORD and --password-file goes with --username")
        if not username and (password or file):
            log.fatal("a password goes with --username only")
        if username and parts.username:
            log.fatal("credentials may not be specified in --repo when --username is specified")
        if not username and parts.scheme in ("http", "https") and parts.username:
            username, password = parts.username, parts.password or ""
            netloc = parts.netloc.rpartition("@")[2]
            self.repo = urlunsplit(parts._replace(netloc=netloc))
        first = {"url": self.repo, "username": username, "password": password}
        more = list(values["credential"])
        for credential in more:
            if bool(credential.get("password")) == bool(credential.get("password-file")):
                log.fatal("invalid flag: --credential needs one of password and password-file")
        return [{**first, "password-file": file}, *more] if username else more


def signal_of(text: str, log: Log) -> signal.Signals | None:
    """
    A signal by name or number.
    """
    if not text:
        return None
    try:
        return signal.Signals(int(text, 0))
    except ValueError:
        for name in (text, f"SIG{text}"):
            if name in signal.Signals.__members__:
                return signal.Signals[name]
    return log.fatal("invalid flag: --sync-on-signal must be a valid signal name or number")
