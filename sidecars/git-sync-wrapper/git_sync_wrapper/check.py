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
from git_sync_wrapper.logins import PINNED_HOSTS
from git_sync_wrapper.options import Options
from git_sync_wrapper.reasons import LOGIN, failure
from git_sync_wrapper.settings import Settings
from git_sync_wrapper.sidecar import Parts, WrapperMetrics, join
from git_sync_wrapper.snapshot import look, pointers_of
from sidecar_runtime import __version__, logs, proxies
from sidecar_runtime.checks import daemon, exit_code, fail, say, try_folder, try_gate, unknown
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.files import explained, nearest_folder

# From 4.8 on, git-sync runs `git config list`.
NEW_GIT_SYNC, NEW_GIT = (4, 8), (2, 46)


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
        parts = join(settings, options, environ, WrapperMetrics(__version__, "check"))
    except SidecarError as error:
        return exit_code([fail("settings", error)])
    fence = Fence()
    try:
        results = [
            check_programs(parts.engine, fence),
            check_logins(parts, fence),
            check_remote(parts, environ, fence),
            check_root(options),
        ]
        results.append(try_gate(parts.gate, settings.gate, fence))
        return exit_code([*results, daemon(settings.http_bind)])
    finally:
        parts.logins.close()


def check_programs(engine: Engine, fence: Fence) -> bool:
    """
    Check that git-sync and git can run, and fit each other.
    """
    said = engine.versions(fence)
    found = re.match(r"git-sync v?(\d+)\.(\d+)\S*, git version (\d+)\.(\d+)", said)
    if found is None:
        return fail("programs", failure("git_sync_unusable", said))
    numbers = [int(number) for number in found.groups()]
    git_sync, git = tuple(numbers[:2]), tuple(numbers[2:])
    if git_sync >= NEW_GIT_SYNC and git < NEW_GIT:
        return fail("programs", failure("git_too_old", said))
    say("ok", "programs", said.partition(";")[0])
    return True


def check_logins(parts: Parts, fence: Fence) -> bool:
    """
    Print who logs in and with which credentials; :func:`check_remote` tests them on the server.
    """
    options = parts.options
    try:
        access = parts.logins.prepare(fence)
    except SidecarError as error:
        return fail("credentials", error)
    if options.repo.startswith(("http://", "https://", "file://", "/")):
        for who in [sent.who for sent in access.sent] or ["none: anonymous, or git's own"]:
            say("ok", "credentials", who)
        return True
    for path in options.ssh_key_file:
        is_there = os.path.exists(path)
        say("ok" if is_there else "??", "ssh key", path if is_there else f"{path} is missing")
    is_built_in = access.for_git_sync["GITSYNC_SSH_KNOWN_HOSTS_FILE"] == PINNED_HOSTS
    built_in = "built-in keys of the large forges, because no known_hosts file is mounted"
    say("ok", "known hosts", built_in if is_built_in else options.ssh_known_hosts_file)
    return True


def check_remote(parts: Parts, environ: Mapping[str, str], fence: Fence) -> bool:
    """
    Check that the server answers, accepts the credentials and has the ref.
    """
    options, began = parts.options, time.monotonic()
    try:
        commit = _ask(parts, environ, fence)
    except SidecarError as error:
        # A server cannot look up a hash, but it has answered.
        if not options.is_pinned or error.reason != "ref_not_found":
            return fail("remote", error)
        commit = "a hash, which only a sync can verify"
    text = f"answers in {time.monotonic() - began:.2f} s: {options.ref} is {commit}"
    say("ok", "remote", text)
    return True


def _ask(parts: Parts, environ: Mapping[str, str], fence: Fence) -> str:
    """
    Poll; with a GitHub App, let git-sync, which alone can request the token, fetch into a temporary
    folder.
    """
    settings, options = parts.settings, parts.options
    try:
        return parts.git.poll(parts.logins.prepare(fence), fence)
    except SidecarError as error:
        if not options.is_github_app or error.reason not in LOGIN:
            raise
    above = nearest_folder(options.root)
    with (
        explained(f"cannot write to {above}"),
        tempfile.TemporaryDirectory(dir=above, prefix=".check-") as folder,
    ):
        engine = Engine(settings.git_sync, options, environ, parts.git, f"{folder}/root")
        return engine.run(parts.logins, fence)


def check_root(options: Options) -> bool:
    """
    Check that the volume is writable; print what the link shows.
    """
    try:
        try_folder("root", options.root, needs_symlinks=True)
    except SidecarError as error:
        return fail("root", error)
    shown, link = look(options), options.link
    if shown.fallback:
        text = f"shows {shown.commit}, a fallback: the gate refused {shown.fallback}"
        say("??", "link", f"{link} {text}")
    elif shown.commit and (text := shown.problem(options) or shown.shortfall(options)):
        say("??", "link", text)
    else:
        say("ok", "link", f"{link} shows {shown.commit or 'nothing of ours yet'}")
    if named := pointers_of(shown.facts):
        say("??", "", f"Git LFS pointers instead of files: {', '.join(named)}")
    return True
