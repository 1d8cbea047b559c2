"""
One sync: check, fetch, check out, flip the link, clean up; with the git commands of git-sync.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from pathlib import Path

from settings import Settings


class SyncFailed(Exception):
    """
    One sync failed; it is tried again.
    """


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
