"""
What the tests of logins share: options and settings from variables, and who is let in.
"""

from __future__ import annotations

from git_sync_wrapper.access import Access
from git_sync_wrapper.options import Options, read_options
from git_sync_wrapper.settings import Settings, load_settings

PROGRAM = "/bin/true"  # there need be no git-sync here


def given(repo: str, **variables: str) -> tuple[Settings, Options, dict[str, str]]:
    """
    Read settings and options as the daemon does.
    """
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


def make_access(repo: str, **variables: str) -> Access:
    """
    Make what logs in; it is not started.
    """
    return Access(*given(repo, **variables))
