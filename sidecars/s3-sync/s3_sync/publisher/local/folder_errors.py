"""
Why a folder cannot become a release.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar_runtime.errors import EXIT_SETTINGS, SidecarError

NAMED = 10


class FolderError(SidecarError):
    """
    Something in the folder, or in what was typed, is in the way; nothing was uploaded.
    """

    exit_code = EXIT_SETTINGS


def joined(problems: Sequence[FolderError]) -> FolderError:
    """
    Return several problems as one; the reason and the advice are those of the first.
    """
    texts = [problem.message for problem in problems[:NAMED]]
    if len(problems) > NAMED:
        texts.append(f"{len(problems) - NAMED} more")
    return FolderError(problems[0].reason, "; ".join(texts), problems[0].advice)
