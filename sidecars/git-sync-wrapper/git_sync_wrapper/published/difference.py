"""
Compare the published commit with the settings.

They differ after a restart with other settings, until a cycle has reached the remote.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import NamedTuple

from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.flags.rules import split_url
from git_sync_wrapper.published.record import Published

# scp's form of an ssh address: USER@HOST:PATH.
_SCP = re.compile(r"(?:[^@/:]*@)?([^@/:]+):(?!:)(.*)", re.DOTALL)


class Difference(NamedTuple):
    """
    How the published commit differs from the settings, as text; empty if it does not.

    Args:
        problem: The commit is wrong for consumers: not the pinned one, or of another repository.
        shortfall: It was published for another ref, or was checked out with other settings.
    """

    problem: str = ""
    shortfall: str = ""


def find_difference(published: Published, options: Options) -> Difference:
    """
    Compare the published commit with the settings; facts that are not recorded count as equal.
    """
    commit, ref = published.commit, options.ref
    if options.is_pinned:
        # The hash of an annotated tag pins the commit that the tag names.
        if ref not in (commit, published.ref):
            return Difference(f"{options.link} shows {commit}, but GITSYNC_REF pins {ref}")
    elif is_elsewhere(published, options):
        shown = f"{options.link} shows {commit} of {published.repo}"
        return Difference(f"{shown}, but GITSYNC_REPO is another repository")
    elif published.ref not in ("", ref):
        was = f"{commit} was published for the ref {published.ref}"
        return Difference(shortfall=f"{was}, but GITSYNC_REF is {ref}")
    if not is_made_as_asked(published, options):
        return Difference(shortfall=f"{commit} was checked out with other git-sync settings")
    return Difference()


def is_elsewhere(published: Published, options: Options) -> bool:
    """
    Whether a commit is of another repository; a pinned commit is the same in each.
    """
    if not published.repo or options.is_pinned:
        return False
    return _place(published.repo) != _place(options.repo)


def _place(repo: str) -> tuple[str, str]:
    """
    Return host and path, which identify a repository; scheme, port, user, query and ``.git`` do
    not.
    """
    scp = None if "://" in repo else _SCP.fullmatch(repo)
    url = split_url(repo)
    host, path = scp.groups() if scp else (url.hostname or "", url.path)
    return host.lower(), path.strip("/").removesuffix(".git")


def is_made_as_asked(published: Published, options: Options) -> bool:
    """
    Whether a commit was made with the current values of the settings that affect its files.
    """
    return published.made_by in ("", made_by(options))


def made_by(options: Options) -> str:
    """
    Return a digest of the settings that affect a commit's files and history.
    """
    told = options
    facts = [told.repo, told.depth, told.filter, told.submodules, told.group_write]
    digest = _digest(json.dumps(facts).encode())
    if not options.sparse_checkout_file:
        return digest
    try:
        with open(options.sparse_checkout_file, "rb") as file:
            sparse = file.read()
    except OSError:
        sparse = b""  # git-sync reports the problem
    return _digest(digest.encode() + sparse)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
