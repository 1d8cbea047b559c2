"""
The errors of a folder that cannot become a release.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar_runtime.errors import EXIT_SETTINGS, SidecarError

NAMED = 10


class FolderError(SidecarError):
    """
    The folder or an argument cannot be used; nothing was uploaded.
    """

    exit_code = EXIT_SETTINGS


def joined(problems: Sequence[FolderError]) -> FolderError:
    """
    Join several problems into one error, with the reason and the advice of the first.
    """
    texts = [problem.message for problem in problems[:NAMED]]
    if len(problems) > NAMED:
        texts.append(f"{len(problems) - NAMED} more")
    return FolderError(problems[0].reason, "; ".join(texts), problems[0].advice)
