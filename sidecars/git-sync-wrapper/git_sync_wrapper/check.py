"""
``git-sync-wrapper check``: tests what the daemon needs, and reports how to fix what
fails.
"""

from __future__ import annotations

from collections.abc import Iterable

from git_sync_wrapper.engine import Engine
from git_sync_wrapper.options import Options
from git_sync_wrapper.reasons import LOGIN, failure
from git_sync_wrapper.settings import Settings
from git_sync_wrapper.sidecar import Parts, WrapperMetrics, join
from git_sync_wrapper.snapshot import find_published
from sidecar_runtime import logs
from sidecar_runtime.checks import Checks
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence

# The least that git-sync needs for another commit.
COMMIT_BYTES = 1 << 20


def run(settings: Settings, names: Iterable[str], options: Options) -> int:
    """
    Print one line for each check; return the exit code. Nothing is published.

    Args:
        names: Variables with our prefix that no setting reads.
    """
    print(f"git-sync-wrapper check: {options.source} -> {options.link}")
    checks = Checks(names)
    logs.configure("warning")
    parts = join(settings, options, WrapperMetrics())
    fence = Fence()
    try:
        check_programs(checks, parts.engine, fence)
        check_remote(checks, parts, fence)
        check_root(checks, options)
        checks.try_gate(parts.gate, settings.gate, fence)
        checks.daemon(settings.http_bind)
    finally:
        parts.logins.close()
    return checks.exit_code


def check_programs(checks: Checks, engine: Engine, fence: Fence) -> None:
    """
    Check that git-sync and git can run; say what they need of each other.
    """
    said = engine.versions(fence)
    if "unknown" in said or "git-sync v" not in said:
        checks.fail("programs", failure("git_sync_unusable", said))
    else:
        checks.ok("programs", said)


def check_remote(checks: Checks, parts: Parts, fence: Fence) -> None:
    """
    Print who logs in and with which credentials; check that the server answers, accepts
    them and has the ref.
    """
    options = parts.options
    try:
        who = [sent.who for sent in parts.logins.prepare(fence).sent]
        for each in who or ["none: anonymous, ssh's or git's own"]:
            checks.ok("credentials", each)
        commit = parts.git.poll(fence)
    except SidecarError as error:
        if options.is_github_app and error.reason in LOGIN:
            checks.say(
                "??",
                "remote",
                "only the daemon's git-sync can ask for a GitHub App's token",
            )
        else:
            checks.fail("remote", error)
        return
    if options.is_pinned:
        commit = "a hash, which only a sync can verify"
    checks.ok("remote", f"answers: {options.ref} is {commit}")


def check_root(checks: Checks, options: Options) -> None:
    """
    Check that the volume is writable; print what the link shows.
    """
    try:
        checks.try_folder(
            "root", options.root, needs_symlinks=True, needed_bytes=COMMIT_BYTES
        )
    except SidecarError as error:
        checks.fail("root", error)
        return
    shown = find_published(options)
    lacks = shown.commit and (shown.problem(options) or shown.shortfall(options))
    checks.say(
        "??" if lacks else "ok",
        "link",
        lacks or f"{options.link} shows {shown.commit or 'nothing of ours yet'}",
    )
