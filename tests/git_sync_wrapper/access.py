"""
Shared by the tests of logins: settings and options from variables, and access to a repository.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

from git_sync_wrapper.flags.options import Options, read_options
from git_sync_wrapper.login.access import Access
from git_sync_wrapper.settings import Settings, load_settings

PROGRAM = "/bin/true"  # these tests do not run git-sync


def given(repo: str, **variables: str) -> tuple[Settings, Options, dict[str, str]]:
    """Read settings and options as the daemon does."""
    environ = {
        "GITSYNC_REPO": repo,
        "GITSYNC_ROOT": "/nowhere",
        "GIT_SYNC_WRAPPER_GIT_SYNC": PROGRAM,
        **variables,
    }
    settings, _ = load_settings(environ)
    options = read_options(
        [],
        environ,
        has_username=bool(settings.username_file),
        has_password=settings.credentials.kind == "secrets-manager",
    )
    return settings, options, environ


def git_credential(
    action: str, question: str, config: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run `git credential`, as git does in a fetch to request or report a credential."""
    given = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    given |= {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_COUNT": str(len(config))}
    for number, (key, value) in enumerate(config.items()):
        given |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    command = ["git", "credential", action]
    return subprocess.run(
        command, input=question, capture_output=True, text=True, timeout=60, env=given
    )


def make_access(repo: str, **variables: str) -> Access:
    """Make an `Access` without starting it."""
    return Access(*given(repo, **variables))
