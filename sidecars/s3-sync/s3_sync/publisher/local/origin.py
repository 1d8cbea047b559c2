"""
The origin of a folder: its git commit, and the CI job that publishes it.
"""

from __future__ import annotations

import getpass
import platform
import subprocess
from collections.abc import Mapping

from s3_sync.release.facts import Origin

GIT_SECONDS = 10

# https://docs.github.com/en/actions/reference/workflows-and-actions/variables
# https://docs.gitlab.com/ci/variables/predefined_variables/
# https://www.jenkins.io/doc/book/pipeline/jenkinsfile/#using-environment-variables
# https://docs.aws.amazon.com/codebuild/latest/userguide/build-env-ref-env-vars.html
_COMMIT = ("GITHUB_SHA", "CI_COMMIT_SHA", "GIT_COMMIT", "CODEBUILD_RESOLVED_SOURCE_VERSION")
_BRANCH = ("GITHUB_REF_NAME", "CI_COMMIT_REF_NAME", "GIT_BRANCH", "CODEBUILD_WEBHOOK_HEAD_REF")
_URL = ("CI_JOB_URL", "BUILD_URL", "CODEBUILD_BUILD_URL")
_BY = ("GITHUB_ACTOR", "GITLAB_USER_LOGIN", "BUILD_USER_ID", "CODEBUILD_INITIATOR")


def find_origin(folder: str, environ: Mapping[str, str]) -> Origin:
    """
    Return the known origin; git, if available, takes precedence over the variables of the CI.
    """
    commit, author, message = _git(folder)
    return Origin(
        by=find_publisher(environ),
        commit=commit or _first(environ, _COMMIT),
        branch=_first(environ, _BRANCH),
        author=author or environ.get("CI_COMMIT_AUTHOR", ""),
        message=message or environ.get("CI_COMMIT_TITLE", ""),
        ci_url=find_ci_url(environ),
    )


def find_publisher(environ: Mapping[str, str]) -> str:
    """
    Return who publishes: from the variables of the CI, or else user and machine.
    """
    if by := _first(environ, _BY):
        return by
    try:
        return f"{getpass.getuser()}@{platform.node()}"
    except (KeyError, OSError):  # a uid without a name
        return platform.node()


def find_ci_url(environ: Mapping[str, str]) -> str:
    """
    Return the URL of the CI run; empty outside a CI.
    """
    server, repository = environ.get("GITHUB_SERVER_URL"), environ.get("GITHUB_REPOSITORY")
    if server and repository:
        return f"{server}/{repository}/actions/runs/{environ.get('GITHUB_RUN_ID', '')}"
    return _first(environ, _URL)


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((environ[name] for name in names if environ.get(name)), "")


def _git(folder: str) -> tuple[str, str, str]:
    """
    Return commit, author and subject; the commit ends in `-dirty` if tracked files have changed.
    """
    log = _ask_git(folder, "log", "-1", "--format=%H%x00%an <%ae>%x00%s")
    commit, _, rest = log.partition("\0")
    author, _, message = rest.partition("\0")
    is_dirty = commit and _ask_git(
        folder, "status", "--porcelain", "--untracked-files=no", "--", "."
    )
    return f"{commit}-dirty" if is_dirty else commit, author, message


def _ask_git(folder: str, *arguments: str) -> str:
    """
    Return the output of git in a folder; empty without git or a repository.
    """
    try:
        said = subprocess.run(
            ["git", "-C", folder, *arguments],
            check=True,
            capture_output=True,
            timeout=GIT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.decode(errors="replace").strip()
