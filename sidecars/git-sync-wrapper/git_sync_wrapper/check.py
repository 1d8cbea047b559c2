"""
``git-sync-wrapper check``: tests what the daemon needs, and reports how to fix what fails.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterable, Mapping

from git_sync_wrapper.engine import Engine
from git_sync_wrapper.git import Git
from git_sync_wrapper.logins import PINNED_HOSTS, Logins
from git_sync_wrapper.metrics import WrapperMetrics
from git_sync_wrapper.options import Options
from git_sync_wrapper.publish import LOCK, check_link
from git_sync_wrapper.reasons import LOGIN, failure
from git_sync_wrapper.record import STORE, look, pointers
from git_sync_wrapper.settings import Settings
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

# The oldest git for each git-sync: from 4.8 on it runs `git config list`.
NEEDED = (((4, 8), (2, 46)), ((4, 0), (2, 20)))


def run(
    settings: Settings, names: Iterable[str], options: Options, environ: Mapping[str, str]
) -> int:
    """
    Print one line for each check; return the exit code. Nothing is published.

    Args:
        names: Variables with our prefix that no setting reads.
    """
    print(f"git-sync-wrapper check: {options.source} -> {options.link}")
    unknown(names)
    for name, why in proxies.ignored(environ).items():
        say("??", "settings", f"{name}: {why}")
    logs.configure("warning", None)
    try:
        logins = Logins(settings, options)
    except SidecarError as error:
        return exit_code([fail("private folder", error)])
    try:
        checks = _Checks(settings, options, logins, environ)
        results = [checks.programs(), checks.credentials(), checks.remote(), checks.root()]
        return exit_code([*results, checks.gate(), checks.daemon()])
    finally:
        logins.close()


class _Checks:
    def __init__(
        self, settings: Settings, options: Options, logins: Logins, environ: Mapping[str, str]
    ) -> None:
        self._settings = settings
        self._options = options
        self._logins = logins
        self._environ = environ
        self._fence = Fence()
        self._git = Git(options, environ, logins.folder)

    def _engine(self, root: str) -> Engine:
        return Engine(self._settings.git_sync, self._options, self._environ, self._git, root)

    def programs(self) -> bool:
        """
        Check that git-sync and git can run, and fit each other.
        """
        said = self._engine(self._logins.folder).versions(self._fence)
        found = re.match(r"git-sync v?(\d+)\.(\d+)\S*, git version (\d+)\.(\d+)", said)
        if found is None:
            return fail("programs", failure("git_sync_unusable", said))
        numbers = [int(number) for number in found.groups()]
        mine, git = tuple(numbers[:2]), tuple(numbers[2:])
        for version, needed in NEEDED:
            if mine >= version:
                if git < needed:
                    return fail("programs", failure("git_too_old", said))
                say("ok", "programs", said.partition(";")[0])
                return True
        return fail("programs", failure("git_sync_unusable", f"{said}: git-sync 4 is needed"))

    def credentials(self) -> bool:
        """
        Print who logs in and with which credentials; :meth:`remote` tests them on the server.
        """
        options = self._options
        try:
            access = self._logins.prepare(self._fence)
        except SidecarError as error:
            return fail("credentials", error)
        if options.repo.startswith(("http://", "https://", "file://", "/")):
            for sent in access.sent:
                say("ok", "credentials", sent.who)
            if not access.sent:
                say("ok", "credentials", "none in the settings: anonymous, or git's own")
            return True
        for path in options.ssh_key_file:
            is_there = os.path.exists(path)
            say("ok" if is_there else "??", "ssh key", path if is_there else f"{path} is missing")
        is_built_in = access.for_git_sync["GITSYNC_SSH_KNOWN_HOSTS_FILE"] == PINNED_HOSTS
        built_in = "built-in keys of the large forges, because no known_hosts file is mounted"
        say("ok", "known hosts", built_in if is_built_in else options.ssh_known_hosts_file)
        return True

    def remote(self) -> bool:
        """
        Check that the server answers, accepts the credentials and has the ref.
        """
        options, began = self._options, time.monotonic()
        try:
            commit = self._ask()
        except SidecarError as error:
            # A server cannot look up a hash, but it has answered.
            if not options.is_pinned or error.reason != "ref_not_found":
                return fail("remote", error)
        text = f"answers in {time.monotonic() - began:.2f} s"
        if options.is_pinned:
            say("ok", "remote", f"{text}; only a sync can verify that it has {options.ref}")
        else:
            say("ok", "remote", f"{text}: {options.ref} is {commit}")
        return True

    def _ask(self) -> str:
        """
        Poll; with a GitHub App, let git-sync, which alone can request the token, fetch into a
        temporary folder.
        """
        try:
            return self._git.poll(self._logins.prepare(self._fence), self._fence)
        except SidecarError as error:
            if not self._options.is_github_app or error.reason not in LOGIN:
                raise
        above = nearest_folder(self._options.root)
        with (
            explained(f"cannot write to {above}", above),
            tempfile.TemporaryDirectory(dir=above, prefix=".check-") as folder,
        ):
            return self._engine(folder).run(self._logins, self._fence)

    def root(self) -> bool:
        """
        Check that the volume is writable; print what the link shows and who holds the lock.
        """
        options = self._options
        try:
            has_links = try_folder("root", options.root, needs_symlinks=True)
            check_link(options)
            is_taken = os.path.lexists(options.link)
        except SidecarError as error:
            return fail("root", error)
        if not has_links:
            say("??", "", "no hard links on this volume: each snapshot is a full copy")
        shown = look(options)
        if shown.fallback:
            instead = f"a fallback: the gate refused {shown.fallback}"
            say("??", "link", f"{options.link} shows {shown.commit}, {instead}")
        elif shown.commit and (text := shown.problem(options) or shown.shortfall(options)):
            say("??", "link", text)
        else:
            other = "something else, which the first commit replaces" if is_taken else "nothing yet"
            say("ok", "link", f"{options.link} shows {shown.commit or other}")
        if named := pointers(shown.facts):
            say("??", "", f"Git LFS pointers instead of files: {', '.join(named)}")
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
        return try_gate(gate, self._settings.gate, self._logins.folder, self._fence)
