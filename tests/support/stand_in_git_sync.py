#!/usr/bin/env -S python3 -IS
"""
A small stand-in for the git-sync binary, for machines that do not have it.

It runs the same git commands in the same order as git-sync 4.7.1, takes the same flags and
variables, ends with the same codes, and fails in the same ways: it wipes its root when a check
fails, is stuck by a `tmp-link`, leaves git behind on SIGTERM, keeps credentials for an hour.
Left out: GitHub Apps, pprof, cookie files, acting as process 1, most of the log lines.
Standard library only, as it is a program of its own: nothing here is imported by tests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit, urlunsplit

VERSION = "v4.7.1-stand-in"

# Flag: type, default, variables besides $GITSYNC_FLAG. `*` is $GIT_SYNC_FLAG. `-`: none at all.
# The last variable that is set wins, as in git-sync.
FLAGS: dict[str, tuple[type, Any, str]] = {
    "repo": (str, "", "*"),
    "ref": (str, "HEAD", ""),
    "depth": (int, 1, "*"),
    "filter": (str, "", ""),
    "submodules": (str, "recursive", "*"),
    "sparse-checkout-file": (str, "", "*"),
    "root": (str, "", "*"),
    "link": (str, "", "*"),
    "error-file": (str, "", "*"),
    "init-period": (float, 0.0, ""),
    "period": (float, 10.0, "*"),
    "sync-timeout": (float, 120.0, "*"),
    "one-time": (bool, False, "*"),
    "sync-on-signal": (str, "", "*"),
    "max-failures": (int, 0, "*"),
    "init-max-failures": (int, None, ""),
    "touch-file": (str, "", "*"),
    "add-user": (bool, False, "*"),
    "group-write": (bool, False, "*"),
    "stale-worktree-timeout": (float, 0.0, ""),
    "exechook-command": (str, "", "*"),
    "exechook-timeout": (float, 30.0, "*"),
    "exechook-backoff": (float, 3.0, "*"),
    "webhook-url": (str, "", "*"),
    "webhook-method": (str, "POST", "*"),
    "webhook-success-status": (int, 200, "*"),
    "webhook-timeout": (float, 1.0, "*"),
    "webhook-backoff": (float, 3.0, "*"),
    "username": (str, "", "*"),
    "__env__GITSYNC_PASSWORD": (str, "", "- GITSYNC_PASSWORD GIT_SYNC_PASSWORD"),
    "password-file": (str, "", "*"),
    "credential": (list, (), ""),
    "ssh-key-file": (list, ("/etc/git-secret/ssh",), "* GIT_SSH_KEY_FILE"),
    "ssh-known-hosts": (bool, True, "GIT_SYNC_KNOWN_HOSTS GIT_KNOWN_HOSTS"),
    "ssh-known-hosts-file": (str, "/etc/git-secret/known_hosts", "* GIT_SSH_KNOWN_HOSTS_FILE"),
    "cookie-file": (bool, False, "* GIT_COOKIE_FILE"),
    "askpass-url": (str, "", "* GIT_ASKPASS_URL"),
    "github-base-url": (str, "https://api.github.com/", ""),
    "github-app-private-key-file": (str, "", ""),
    "github-app-client-id": (str, "", ""),
    "github-app-application-id": (int, 0, ""),
    "github-app-installation-id": (int, 0, ""),
    "__env__GITSYNC_GITHUB_APP_PRIVATE_KEY": (str, "", "- GITSYNC_GITHUB_APP_PRIVATE_KEY"),
    "git": (str, "git", "*"),
    "git-config": (str, "", "*"),
    "git-gc": (str, "always", "*"),
    "http-bind": (str, "", "*"),
    "http-metrics": (bool, False, "*"),
    "http-pprof": (bool, False, "*"),
    "verbose": (int, 0, ""),
    "version": (bool, False, "-"),
    "help": (bool, False, "-"),
    "man": (bool, False, "-"),
    # of version 3
    "branch": (str, "", "- GIT_SYNC_BRANCH"),
    "change-permissions": (int, 0, "- GIT_SYNC_PERMISSIONS"),
    "dest": (str, "", "- GIT_SYNC_DEST"),
    "max-sync-failures": (int, 0, "- GIT_SYNC_MAX_SYNC_FAILURES"),
    "password": (str, "", "-"),
    "rev": (str, "", "- GIT_SYNC_REV"),
    "ssh": (bool, False, "-"),
    "sync-hook-command": (str, "", "- GIT_SYNC_HOOK_COMMAND"),
    "timeout": (int, 0, "- GIT_SYNC_TIMEOUT"),
    "v": (int, -1, "-"),
    "wait": (str, "", "- GIT_SYNC_WAIT"),
}
SHORT = {"v": "verbose", "h": "help", "?": "help"}
UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class SyncFailed(Exception):
    """
    One sync failed; it is tried again.
    """


def convert(kind: type, text: str) -> Any:
    """
    The value of a flag. Raises ValueError.
    """
    if kind is bool:
        lowered = text.lower()
        if lowered not in ("1", "t", "true", "0", "f", "false"):
            raise ValueError(text)
        return lowered in ("1", "t", "true")
    if kind is float:
        parts = re.findall(r"([0-9]*\.?[0-9]+)(ns|us|ms|s|m|h)", text)
        if text != "0" and "".join(number + unit for number, unit in parts) != text.lstrip("-"):
            raise ValueError(text)
        total = sum(float(number) * UNITS[unit] for number, unit in parts)
        return -total if text.startswith("-") else total
    return kind(text)


def variables_of(flag: str, names: str) -> list[str]:
    """
    The variables of a flag, the strongest last.
    """
    stem = flag.upper().replace("-", "_")
    found = names.replace("*", f"GIT_SYNC_{stem}").split()
    return found[1:] if found[:1] == ["-"] else [f"GITSYNC_{stem}", *found]


def from_environment() -> dict[str, Any]:
    """
    Defaults, and what the variables say.
    """
    values = {}
    for flag, (kind, default, names) in FLAGS.items():
        values[flag] = default
        for name in variables_of(flag, names):
            text = os.environ.get(name)
            if text is None:
                continue
            try:
                if flag == "credential":
                    values[flag] = json.loads(text)
                elif kind is list:
                    values[flag] = tuple(text.split(":"))
                else:
                    values[flag] = convert(kind, text)
            except ValueError as error:
                sys.exit(f"FATAL: can't parse ${name}: {error}")
    return values


def parse(arguments: list[str]) -> dict[str, Any]:
    """
    The flags over the variables. Ends the process with 2, as pflag does, when it cannot.
    """
    values = from_environment()
    given: dict[str, list[Any]] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument.startswith("--"):
            flag, equals, text = argument[2:].partition("=")
        elif argument.startswith("-"):
            flag, text = SHORT.get(argument[1:2], argument[1:2]), argument[2:].removeprefix("=")
            equals = text
        else:
            continue
        kind = FLAGS[flag][0] if flag in FLAGS else usage_error(f"unknown flag: {argument}")
        if not equals:
            text = "true" if kind is bool else (rest.pop(0) if rest else "")
        try:
            if flag == "credential":
                found = json.loads(text)
                given.setdefault(flag, []).extend(found if isinstance(found, list) else [found])
            elif kind is list:
                given.setdefault(flag, []).append(text)
            else:
                values[flag] = convert(kind, text)
        except ValueError:
            usage_error(f'invalid argument "{text}" for "--{flag}" flag')
    return values | given


def usage_error(message: str) -> NoReturn:
    """
    End as pflag does.
    """
    print(message, file=sys.stderr)
    sys.exit(2)


def duration_of_wait(text: str) -> float:
    """
    Version 3's wait: a number of seconds.
    """
    try:
        return float(text or 0)
    except ValueError:
        sys.exit(f"FATAL: can't parse $GIT_SYNC_WAIT: {text}")


class Log:
    """
    JSON lines on stderr, and the error file.
    """

    def __init__(self, error_file: Path | None) -> None:
        self.error_file = error_file

    def info(self, message: str, **values: Any) -> None:
        """
        One line.
        """
        self._write({"level": 0, "msg": message, **values})

    def failure(self, message: str, error: object, **values: Any) -> None:
        """
        One line, and the error file.
        """
        self._write({"msg": message, "error": str(error), **values})
        self.export(json.dumps({"Msg": message, "Err": str(error), "Args": values}))

    def export(self, content: str) -> None:
        """
        Write the error file.
        """
        if self.error_file is not None:
            self.error_file.parent.mkdir(exist_ok=True)
            handle, name = tempfile.mkstemp(prefix="tmp-err-", dir=self.error_file.parent)
            os.write(handle, content.encode())
            os.close(handle)
            os.chmod(name, 0o644)
            os.rename(name, self.error_file)

    def clear(self) -> None:
        """
        Remove the error file.
        """
        if self.error_file is not None:
            self.error_file.unlink(missing_ok=True)

    def fatal(self, message: str) -> NoReturn:
        """
        End for a bad setting.
        """
        self.export(message)
        sys.exit(message)

    def _write(self, values: dict[str, Any]) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        print(json.dumps({"logger": "", "ts": stamp, **values}), file=sys.stderr, flush=True)


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


class Sync:
    """
    The repository, its worktrees and the link.
    """

    def __init__(self, settings: Settings, counts: Counter[str]) -> None:
        self.settings = settings
        self.counts = counts
        self.ready = False
        self.updates = 0
        self.deadline = 0.0

    def git(self, *arguments: str, cwd: Path | None = None, stdin: str = "") -> str:
        """
        Run git, for as long as the sync may take, and return its output.
        """
        command = [self.settings.values["git"], *arguments]
        process = subprocess.Popen(
            command,
            cwd=cwd or self.settings.root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            out, err = process.communicate(
                stdin, timeout=max(0.0, self.deadline - time.monotonic())
            )
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise SyncFailed(f"Run({' '.join(command)}): context deadline exceeded") from None
        if process.returncode:
            raise SyncFailed(
                f"Run({' '.join(command)}): exit status {process.returncode}: "
                f"{{ stdout: {json.dumps(out.strip())}, stderr: {json.dumps(err.strip())} }}"
            )
        return out.strip()

    def start_clock(self, seconds: float) -> None:
        """
        Allow so many seconds from now.
        """
        self.deadline = time.monotonic() + seconds

    def configure(self) -> None:
        """
        Make a git configuration of our own.
        """
        settings = self.settings
        self.start_clock(30)
        settings.log.info("git version", version=self.git("version", cwd=Path("/")))
        handle, name = tempfile.mkstemp(prefix="git-sync.gitconfig.")
        os.close(handle)
        os.environ["GIT_CONFIG_GLOBAL"] = name
        os.environ["GIT_CONFIG_NOSYSTEM"] = "true"
        pairs = [
            ("gc.autoDetach", "false"),
            ("gc.pruneExpire", "now"),
            ("credential.helper", "cache --timeout 3600"),
            ("core.askPass", "true"),
            ("safe.directory", "*"),
            *extra_configs(settings.values["git-config"]),
        ]
        ssh = os.environ.get("GIT_SSH_COMMAND") or "ssh"
        ssh += "".join(f" -i {key}" for key in settings.values["ssh-key-file"])
        if settings.values["ssh-known-hosts"]:
            ssh += " -o StrictHostKeyChecking=yes"
            ssh += f" -o UserKnownHostsFile={settings.values['ssh-known-hosts-file']}"
        else:
            ssh += " -o StrictHostKeyChecking=no"
        os.environ["GIT_SSH_COMMAND"] = ssh
        for key, value in pairs:
            self.git("config", "--global", key, value, cwd=Path("/"))

    def refresh_credentials(self) -> None:
        """
        Store what is configured, and what the askpass URL answers.
        """
        for credential in self.settings.credentials:
            password = credential.get("password") or ""
            if credential.get("password-file"):
                try:
                    password = Path(credential["password-file"]).read_text()
                except OSError as error:
                    raise SyncFailed(f"can't read password file: {error}") from error
            self._store(credential["url"], credential["username"], password)
        if self.settings.values["askpass-url"]:
            try:
                with urllib.request.urlopen(self.settings.values["askpass-url"], timeout=1) as got:
                    lines = got.read().decode().split("\n")
            except OSError as error:
                self.counts['git_sync_askpass_calls{status="error"}'] += 1
                raise SyncFailed(f"can't access auth URL: {error}") from error
            answer = dict(line.split("=", 1) for line in lines if "=" in line)
            self._store(self.settings.repo, answer.get("username", ""), answer.get("password", ""))
            self.counts['git_sync_askpass_calls{status="success"}'] += 1

    def _store(self, url: str, username: str, password: str) -> None:
        lines = f"url={url}\nusername={username}\npassword={password}\n"
        self.git("credential", "approve", cwd=Path("/"), stdin=lines)

    def run(self) -> tuple[bool, str]:
        """
        One sync: whether something changed, and the hash. Raises SyncFailed, OSError.
        """
        self.start_clock(self.settings.sync_timeout)
        self.refresh_credentials()
        self._make_usable()
        current = self.current()
        self._fetch()
        wanted = self.git("rev-parse", "FETCH_HEAD^{}")
        known = current.name if current else ""
        if current and known == wanted and not self._is_sound(current):
            self._remove(current)
            known = ""
        changed = known != wanted or current != self.worktree(known)
        if changed or self.updates == 0:
            self._update(current, wanted, changed=changed)
        return changed, wanted

    def _update(self, current: Path | None, wanted: str, *, changed: bool) -> None:
        self.counts["git_fetch_count_total"] += 1
        self.git("reset", "--soft", wanted, "--")
        worktree = self.worktree(wanted) if changed or current is None else current
        if changed:
            self._remove(worktree)
            self.git(
                "worktree", "add", "--force", "--detach", str(worktree), wanted, "--no-checkout"
            )
        self._check_out(worktree)
        if changed:
            self._flip(worktree)
            if current is not None:
                with suppress(OSError):
                    os.utime(current)
        self.ready = True
        self.updates += 1
        log = self.settings.log
        log.info("updated successfully", ref=self.settings.ref, remote=wanted)

    def worktree(self, commit: str) -> Path:
        """
        Where the worktree of a commit is.
        """
        return self.settings.root / ".worktrees" / commit

    def current(self) -> Path | None:
        """
        Where the link points to. Raises OSError when it is no link.
        """
        try:
            target = os.readlink(self.settings.link)
        except FileNotFoundError:
            return None
        return Path(os.path.normpath(self.settings.link.parent / target))

    def _make_usable(self) -> None:
        root = self.settings.root
        root.mkdir(parents=True, exist_ok=True)
        if not self._root_is_sound():
            self.settings.log.info("repo directory was empty or failed checks", path=str(root))
            for entry in sorted(root.iterdir()):
                if entry.exists():  # a link to nothing stays, as there
                    remove(entry)
            self.git("init", "-b", "git-sync")
        try:
            url = self.git("remote", "get-url", "origin")
        except SyncFailed as error:
            if "No such remote" not in str(error):
                raise
            self.git("remote", "add", "origin", self.settings.repo)
        else:
            if url != self.settings.repo:
                self.git("remote", "set-url", "origin", self.settings.repo)

    def _root_is_sound(self) -> bool:
        root = self.settings.root
        if not any(root.iterdir()):
            return False
        try:
            if self.git("rev-parse", "--show-toplevel") != str(root):
                return False
            self.git("fsck", "--no-progress", "--connectivity-only")
        except SyncFailed as error:
            self.settings.log.failure("repo failed its check", error)
            return False
        return not (root / ".git" / "shallow.lock").exists()

    def _is_sound(self, worktree: Path) -> bool:
        try:
            if not any(worktree.iterdir()):
                return False
            if self.git("rev-parse", "HEAD", cwd=worktree) != worktree.name:
                return False
            self.git("fsck", "--no-progress", "--connectivity-only", cwd=worktree)
        except (SyncFailed, OSError) as error:
            self.settings.log.failure("worktree failed its check", error)
            return False
        return True

    def _fetch(self) -> None:
        depth = self.settings.values["depth"]
        options = ["--verbose", "--no-progress", "--prune", "--no-auto-gc"]
        if depth:
            options += ["--depth", str(depth)]
        elif self.git("rev-parse", "--is-shallow-repository") == "true":
            options += ["--unshallow"]
        if self.settings.values["filter"]:
            options += ["--filter", self.settings.values["filter"]]
        self.git("fetch", self.settings.repo, self.settings.ref, *options)

    def _remove(self, worktree: Path) -> None:
        if worktree.exists():
            remove(worktree)
            self.git("worktree", "prune", "--verbose")

    def _check_out(self, worktree: Path) -> None:
        commit, root = worktree.name, self.settings.root
        up = os.path.relpath(root, worktree)
        (worktree / ".git").write_text(f"gitdir: {up}/.git/worktrees/{commit}\n")
        info = root / ".git" / "worktrees" / commit / "info"
        sparse = self.settings.values["sparse-checkout-file"]
        if sparse:
            info.mkdir(exist_ok=True)
            shutil.copyfile(sparse, info / "sparse-checkout")
            self.git("sparse-checkout", "init", cwd=worktree)
        else:
            (info / "sparse-checkout").unlink(missing_ok=True)
        self.git("reset", "--hard", commit, "--", cwd=worktree)
        mode, depth = self.settings.values["submodules"], self.settings.values["depth"]
        if mode != "off":
            options = ["--recursive"] if mode == "recursive" else []
            options += ["--depth", str(depth)] if depth else []
            self.git("submodule", "update", "--init", *options, cwd=worktree)

    def _flip(self, worktree: Path) -> None:
        link = self.settings.link
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.parent / "tmp-link"
        os.symlink(os.path.relpath(worktree, link.parent), temporary)
        os.rename(temporary, link)

    def clean_up(self) -> None:
        """
        Remove worktrees that are no longer current, and what only they needed.
        """
        current, oldest = (
            self.current(),
            time.time() - self.settings.values["stale-worktree-timeout"],
        )
        stale = [
            entry
            for entry in self.worktree("").iterdir()
            if entry != current and entry.stat().st_mtime < oldest
        ]
        for entry in stale:
            remove(entry)
        if stale:
            self.git("worktree", "prune", "--verbose")
            self.git("reflog", "expire", "--expire-unreachable=all", "--all")
            gc = self.settings.values["git-gc"]
            if gc != "off":
                self.git("gc", *([] if gc == "always" else [f"--{gc}"]))


def extra_configs(text: str) -> list[tuple[str, str]]:
    """
    `section.var:value,"section.sub.var":"other value"`.
    """
    word = r'"(?:[^"\\]|\\.)*"|[^,:"]+'
    found = re.findall(rf"({word}):({word})", text)
    return [tuple(part.strip('"').replace('\\"', '"') for part in pair) for pair in found]  # type: ignore[misc]


def remove(path: Path) -> None:
    """
    Remove a file or a folder.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


class Hook(threading.Thread):
    """
    Runs one hook for the latest hash until it succeeds, in a thread of its own.
    """

    def __init__(self, settings: Settings, name: str, counts: Counter[str]) -> None:
        super().__init__(daemon=True)
        self.settings = settings
        self.name = name
        self.counts = counts
        self.hash = ""
        self.asked = threading.Event()
        self.first = threading.Event()
        self.succeeded = False

    def send(self, commit: str) -> None:
        """
        Ask for a run.
        """
        self.hash = commit
        self.asked.set()

    def run(self) -> None:
        """
        Wait, run, try again.
        """
        last = ""
        while self.asked.wait():
            self.asked.clear()
            while self.hash != last:
                commit = self.hash
                try:
                    (self._call if self.name == "webhook" else self._execute)(commit)
                except (OSError, SyncFailed, subprocess.SubprocessError) as error:
                    self._count("error")
                    self.settings.log.failure("hook failed", error, hash=commit)
                    self.first.set()
                    time.sleep(self.settings.values[f"{self.name}-backoff"])
                else:
                    self._count("success")
                    last, self.succeeded = commit, True
                    self.first.set()

    def _count(self, status: str) -> None:
        self.counts[f'git_sync_hook_run_count_total{{name="{self.name}",status="{status}"}}'] += 1

    def _call(self, commit: str) -> None:
        values = self.settings.values
        request = urllib.request.Request(values["webhook-url"], method=values["webhook-method"])
        request.add_header("Gitsync-Hash", commit)
        try:
            with urllib.request.urlopen(request, timeout=values["webhook-timeout"]) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
        if values["webhook-success-status"] > 0 and status != values["webhook-success-status"]:
            raise SyncFailed(f"received response code {status}")

    def _execute(self, commit: str) -> None:
        subprocess.run(
            [self.settings.exechook],
            cwd=self.settings.root / ".worktrees" / commit,
            env={**os.environ, "GITSYNC_HASH": commit},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=self.settings.values["exechook-timeout"],
            check=True,
        )


def serve(settings: Settings, sync: Sync, counts: Counter[str]) -> None:
    """
    Answer on --http-bind, in a thread.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = (200, "") if sync.ready else (503, "repo is not ready\n")
            if settings.values["http-metrics"] and self.path == "/metrics":
                status = 200
                body = "".join(f"{name} {count}\n" for name, count in sorted(counts.items()))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    host, _, port = settings.values["http-bind"].rpartition(":")
    try:
        server = ThreadingHTTPServer((host.strip("[]"), int(port)), Handler)
    except OSError as error:
        settings.log.failure("can't bind HTTP endpoint", error)
        sys.exit(1)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def add_user() -> None:
    """
    Write an entry for this user to /etc/passwd, unless there is one.
    """
    passwd = Path("/etc/passwd")
    if not any(line.split(":")[2:3] == [str(os.getuid())] for line in passwd.open()):
        home = os.environ.get("HOME", "/tmp")
        with passwd.open("a") as file:
            file.write(f"git-sync:x:{os.getuid()}:{os.getgid()}::{home}:/sbin/nologin\n")


def loop(settings: Settings) -> int:
    """
    Sync for ever, or once; returns the exit code.
    """
    values, log = settings.values, settings.log
    counts: Counter[str] = Counter({"git_fetch_count_total": 0})
    sync = Sync(settings, counts)
    sync.configure()
    if values["http-bind"]:
        serve(settings, sync, counts)
    used = {"exechook": settings.exechook, "webhook": values["webhook-url"]}
    hooks = [Hook(settings, name, counts) for name, target in used.items() if target]
    for hook in hooks:
        hook.start()
    asked = threading.Event()
    if settings.signal:
        signal.signal(settings.signal, lambda *_: asked.set())
    failures, syncs, period = 0, 0, settings.init_period
    while True:
        try:
            changed, commit = sync.run()
        except (SyncFailed, OSError) as error:
            failures += 1
            counts['git_sync_count_total{status="error"}'] += 1
            first = values["init-max-failures"]
            limit = first if not syncs and first is not None else settings.max_failures
            if 0 <= limit <= failures:
                log.failure("too many failures, aborting", error, failCount=failures)
                return 1
            log.failure("error syncing repo, will retry", error, failCount=failures)
        else:
            period, failures, sync.ready = settings.period, 0, True
            if changed or syncs == 0:
                if settings.touch_file:
                    settings.touch_file.parent.mkdir(parents=True, exist_ok=True)
                    settings.touch_file.touch()
                for hook in hooks:
                    hook.send(commit)
            status = "success" if changed or syncs == 0 else "noop"
            counts[f'git_sync_count_total{{status="{status}"}}'] += 1
            syncs += 1
            try:
                sync.clean_up()
            except (SyncFailed, OSError) as error:
                log.failure("git cleanup failed", error)
            if values["one-time"]:
                for hook in hooks:
                    hook.first.wait()
                log.clear()
                return 0 if all(hook.succeeded for hook in hooks) else 1
            log.clear()
            if commit == settings.ref:
                log.info("ref appears to be a git hash, no further sync needed", ref=settings.ref)
                signal.signal(signal.SIGINT, lambda *_: os._exit(0))
                while True:
                    time.sleep(3600)
        asked.wait(period)
        asked.clear()


def main() -> None:
    """
    Parse, check, run.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    values = parse(sys.argv[1:])
    for flag, text in (("version", VERSION), ("help", "Usage: git-sync [FLAGS...]"), ("man", "")):
        if values[flag]:
            print(text)
            return
    settings = Settings(values)
    settings.log.info("starting up", version=VERSION, pid=os.getpid(), uid=os.getuid())
    if shutil.which(values["git"]) is None:
        settings.log.failure("FATAL: git executable not found", values["git"])
        sys.exit(1)
    if values["add-user"]:
        try:
            add_user()
        except OSError as error:
            settings.log.failure("FATAL: can't add user", error)
            sys.exit(1)
    sys.exit(loop(settings))


if __name__ == "__main__":
    main()
