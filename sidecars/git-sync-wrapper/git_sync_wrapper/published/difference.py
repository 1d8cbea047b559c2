"""
What the link shows against what the settings ask for.

They differ after a restart with other settings, until a cycle has reached the remote.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import NamedTuple

from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.flags.rules import split_url
from git_sync_wrapper.published.volume import Published

# As scp writes an address of ssh: USER@HOST:PATH.
_SCP = re.compile(r"(?:[^@/:]*@)?([^@/:]+):(?!:)(.*)", re.DOTALL)


class Difference(NamedTuple):
    """
    In words how a shown commit differs from what is asked for; empty where it does not.

    Args:
        problem: It is not what consumers need: another commit than the pinned one, or one of
            another repository.
        shortfall: It is of another ref, or was checked out with other settings.
    """

    problem: str = ""
    shortfall: str = ""


def find_difference(published: Published, options: Options) -> Difference:
    """
    Compare what the link shows with the settings; what is not on record counts as equal.
    """
    commit, ref = published.commit, options.ref
    if options.is_pinned:
        # The hash of an annotated tag pins the commit that it leads to.
        if ref not in (commit, published.ref):
            return Difference(f"{options.link} shows {commit}, and GITSYNC_REF pins {ref}")
    elif is_elsewhere(published, options):
        shown = f"{options.link} shows {commit} of {published.repo}"
        return Difference(f"{shown}, and GITSYNC_REPO is another repository")
    elif published.ref not in ("", ref):
        was = f"{commit} was published for the ref {published.ref}"
        return Difference(shortfall=f"{was}, and GITSYNC_REF is {ref}")
    if not is_made_as_asked(published, options):
        return Difference(shortfall=f"{commit} was checked out with other settings of git-sync")
    return Difference()


def is_elsewhere(published: Published, options: Options) -> bool:
    """
    Whether a commit is of another repository; a pinned one is the same in each.
    """
    if not published.repo or options.is_pinned:
        return False
    return _place(published.repo) != _place(options.repo)


def _place(repo: str) -> tuple[str, str]:
    """
    Return host and path of a repository: scheme, port, user, query and ``.git`` may change without
    another one being meant.
    """
    scp = None if "://" in repo else _SCP.fullmatch(repo)
    url = split_url(repo)
    host, path = scp.groups() if scp else (url.hostname or "", url.path)
    return host.lower(), path.strip("/").removesuffix(".git")


def is_made_as_asked(published: Published, options: Options) -> bool:
    """
    Whether the settings that decide about a commit's files were the same when it was made.
    """
    return published.made_by in ("", made_by(options))


def made_by(options: Options) -> str:
    """
    Return a digest of the settings that decide about the files of a commit, and its history.
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
        sparse = b""  # git-sync will say what is wrong with it
    return _digest(digest.encode() + sparse)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
