"""
``git-sync-wrapper check``: tests what the daemon needs, and reports how to fix what fails.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

from git_sync_wrapper.engine.engine import Engine
from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.git import clean
from git_sync_wrapper.login.access import Access
from git_sync_wrapper.login.ssh_files import PINNED
from git_sync_wrapper.metrics import WrapperMetrics
from git_sync_wrapper.poll.http_poller import make_poller
from git_sync_wrapper.poll.ls_remote_poller import LsRemote
from git_sync_wrapper.published.difference import find_difference
from git_sync_wrapper.published.link import check_link
from git_sync_wrapper.published.record import STORE, look
from git_sync_wrapper.published.volume import LOCK
from git_sync_wrapper.settings import PREFIX, Settings
from sidecar_runtime import __version__, logs, proxies
from sidecar_runtime.checks import daemon, exit_code, fail, say, unknown
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import make_gate
from sidecar_runtime.gate.trial import try_gate
from sidecar_runtime.volume.check import try_folder
from sidecar_runtime.volume.errors import explained
from sidecar_runtime.volume.files import nearest_folder
from sidecar_runtime.volume.lock import find_holder

PROGRAM_SECONDS = 10.0


def run(
    settings: Settings, names: Iterable[str], options: Options, environ: Mapping[str, str]
) -> int:
    """
    Print one line for each check; return the exit code. Nothing is published.

    Args:
        names: Variables with our prefix that no setting reads.

    Raises:
        SettingsError: Settings contradict each other.
    """
    print(f"git-sync-wrapper check: {options.source} -> {options.link}")
    unknown(names)
    for name, why in proxies.ignored(environ).items():
        say("??", "settings", f"{name}: {why}")
    logs.configure("warning", None)
    access = Access(settings, options, environ)
    try:
        access.start()
    except SidecarError as error:
        return exit_code([fail("private folder", error)])
    try:
        checks = _Checks(settings, options, access, environ)
        results = [checks.programs(), checks.credentials(), checks.remote(), checks.root()]
        return exit_code([*results, checks.gate(), checks.daemon()])
    finally:
        access.close()


class _Checks:
    def __init__(
        self, settings: Settings, options: Options, access: Access, environ: Mapping[str, str]
    ) -> None:
        self._settings = settings
        self._options = options
        self._access = access
        self._environ = environ
        self._fence = Fence()
        # For a pinned commit, only test that the server answers: it cannot look up a hash.
        asked = dataclasses.replace(options, ref="HEAD") if options.is_pinned else options
        self._asked = asked
        self._http = make_poller(asked, access)
        self._poller = self._http or LsRemote(asked, access, environ)

    def programs(self) -> bool:
        """
        Check that git-sync and git can run, and print their versions.
        """
        git_sync = self._version("git-sync", self._settings.git_sync)
        git = self._version("git", self._options.git)
        if git_sync and not re.match(r"v?4\.", git_sync):
            say("FAIL", "git-sync", f"{git_sync} is not version 4: set {PREFIX}GIT_SYNC")
            return False
        return bool(git_sync and git)

    def _version(self, name: str, program: str) -> str:
        try:
            done = subprocess.run(
                [program, "--version"],
                env=clean(self._environ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PROGRAM_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            say("FAIL", name, f"cannot run {program}: {error}")
            return ""
        version = done.stdout.strip().removeprefix("git version ")
        say("ok", name, f"{program}: {version}")
        return version

    def credentials(self) -> bool:
        """
        Print who logs in and with which credentials; :meth:`remote` tests them on the server.
        """
        options = self._options
        if options.is_github_app:
            say("ok", "credentials", "git-sync itself requests the token of the GitHub App")
            return True
        is_http = options.repo.startswith(("http://", "https://"))
        if not is_http and not options.repo.startswith(("file://", "/")):
            return self._ssh_files()
        if is_http and self._http is None:
            say("ok", "credentials", "git logs in, with a cookie file or your credential.helper")
            return True
        try:
            who = self._access.who(self._fence)
        except SidecarError as error:
            return fail("credentials", error)
        say("ok", "credentials", who or "none: anonymous access")
        return True

    def _ssh_files(self) -> bool:
        """
        Print the keys and known hosts that ssh uses, repaired if necessary.
        """
        try:
            flags = self._access.prepare().flags
        except SidecarError as error:
            return fail("ssh key", error)
        for path in self._options.ssh_key_files:
            is_there = os.path.exists(path)
            say("ok" if is_there else "??", "ssh key", path if is_there else f"{path} is missing")
        hosts = flags["ssh-known-hosts-file"]
        built_in = "built-in keys of the large forges, because no known_hosts file is mounted"
        say("ok", "known hosts", built_in if hosts == PINNED else str(hosts))
        return True

    def remote(self) -> bool:
        """
        Check that the server answers, accepts the credentials and has the ref.
        """
        options, began = self._options, time.monotonic()
        try:
            commit = self._sync() if options.is_github_app else self._ask()
        except SidecarError as error:
            # Without a default branch, the server still has answered.
            if not options.is_pinned or error.reason != "ref_not_found":
                return fail("remote", error)
        finally:
            self._poller.close()
        text = f"answers in {time.monotonic() - began:.2f} s"
        if options.is_pinned:
            say("ok", "remote", f"{text}; only a sync can verify that it has {options.ref}")
        else:
            say("ok", "remote", f"{text}: {options.ref} is {commit}")
        return True

    def _ask(self) -> str:
        """
        Poll; if our own poll fails, ask git as well, because the daemon would let git-sync try.
        """
        try:
            return self._poller.commit(self._fence)
        except SidecarError as error:
            if self._http is None:
                raise
            with suppress(SidecarError):
                commit = LsRemote(self._asked, self._access, self._environ).commit(self._fence)
                say("??", "poll", f"{error.reason}: {error.message}; git ls-remote succeeds")
                return commit
            raise

    def _sync(self) -> str:
        """
        Let git-sync, which alone can request the token, fetch into a temporary folder.
        """
        above = nearest_folder(self._options.root)
        with (
            explained(f"cannot write to {above}", above),
            tempfile.TemporaryDirectory(dir=above, prefix=".check-") as folder,
        ):
            engine = Engine(
                self._settings.git_sync, self._options, self._access, self._environ, root=folder
            )
            return engine.run(self._fence)

    def root(self) -> bool:
        """
        Check that the volume is writable; print what the link shows and who holds the lock.
        """
        options = self._options
        try:
            has_links = try_folder("root", options.root, needs_symlinks=True)
            if self._settings.mode == "passthrough":  # the link is git-sync's
                return True
            check_link(options)
            with explained(f"cannot read {options.link}", options.link):
                is_taken = os.path.isdir(options.link) and bool(os.listdir(options.link))
        except SidecarError as error:
            return fail("root", error)
        if not has_links:
            say("??", "", "no hard links on this volume: each snapshot is a full copy")
        shown = look(options)
        if shown.fallback:
            instead = f"a fallback: the gate refused {shown.fallback}"
            say("??", "link", f"{options.link} shows {shown.commit}, {instead}")
        elif shown.commit and (text := "".join(find_difference(shown, options))):
            say("??", "link", text)
        elif shown.commit:
            say("ok", "link", f"{options.link} shows {shown.commit}")
        elif os.path.islink(options.link):
            to = os.readlink(options.link)
            say("ok", "link", f"{options.link} is a link to {to}: the first commit replaces it")
        elif is_taken:
            say("??", "link", f"{options.link} is a folder with files: it will be moved aside")
        else:
            say("ok", "link", f"{options.link} shows nothing yet")
        if holder := find_holder(LOCK, os.path.join(options.root, STORE)):
            say("ok", "", f"lock holder: pid {holder.get('pid')} on {holder.get('host')}")
        return True

    def daemon(self) -> bool:
        """
        Check the status of the wrapper that holds the lock of the volume, if there is one.
        """
        bind, options = self._settings.http_bind, self._options
        holder = find_holder(LOCK, os.path.join(options.root, STORE))
        return daemon("git-sync-wrapper", options.source, bind, holder)

    def gate(self) -> bool:
        """
        Check that the gate can run.
        """
        gate = make_gate(self._settings, WrapperMetrics(__version__, "check").gate)
        return try_gate(gate, self._settings.gate, self._access.folder, self._fence)
