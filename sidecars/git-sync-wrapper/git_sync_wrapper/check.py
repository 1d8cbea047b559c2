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
from sidecar_runtime.checks import (
    daemon,
    exit_code,
    fail,
    say,
    try_folder,
    try_gate,
    unknown,
)
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
    unknown(names)
    logs.configure("warning")
    parts = join(settings, options, WrapperMetrics())
    fence = Fence()
    try:
        return exit_code(
            [
                check_programs(parts.engine, fence),
                check_remote(parts, fence),
                check_root(options),
                try_gate(parts.gate, settings.gate, fence),
                daemon(settings.http_bind),
            ]
        )
    finally:
        parts.logins.close()


def check_programs(engine: Engine, fence: Fence) -> bool:
    """
    Check that git-sync and git can run; say what they need of each other.
    """
    said = engine.versions(fence)
    if "unknown" in said or "git-sync v" not in said:
        return fail("programs", failure("git_sync_unusable", said))
    say("ok", "programs", said)
    return True


def check_remote(parts: Parts, fence: Fence) -> bool:
    """
    Print who logs in and with which credentials; check that the server answers, accepts
    them and has the ref.
    """
    options = parts.options
    try:
        who = [sent.who for sent in parts.logins.prepare(fence).sent]
        for each in who or ["none: anonymous, ssh's or git's own"]:
            say("ok", "credentials", each)
        commit = parts.git.poll(fence)
    except SidecarError as error:
        if options.is_github_app and error.reason in LOGIN:
            say(
                "??",
                "remote",
                "only the daemon's git-sync can request the token of a GitHub App",
            )
            return True
        return fail("remote", error)
    if options.is_pinned:
        commit = "a hash, which only a sync can verify"
    say("ok", "remote", f"answers: {options.ref} is {commit}")
    return True


def check_root(options: Options) -> bool:
    """
    Check that the volume is writable; print what the link shows.
    """
    try:
        try_folder(
            "root", options.root, needs_symlinks=True, needed_bytes=COMMIT_BYTES
        )
    except SidecarError as error:
        return fail("root", error)
    shown = find_published(options)
    lacks = shown.commit and (shown.problem(options) or shown.shortfall(options))
    say(
        "??" if lacks else "ok",
        "link",
        lacks or f"{options.link} shows {shown.commit or 'nothing of ours yet'}",
    )
    return True
