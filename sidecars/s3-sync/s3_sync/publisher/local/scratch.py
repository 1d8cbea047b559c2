"""
Temporary folders of a publisher, and what it says where there is no room for them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from s3_sync.publisher.local.folder_errors import FolderError


@contextmanager
def scratch(purpose: str) -> Iterator[str]:
    """
    Yield a folder that is gone afterwards.

    Raises:
        FolderError: There can be none.
    """
    try:
        folder = tempfile.TemporaryDirectory(
            prefix=f"s3-sync-{purpose}-", ignore_cleanup_errors=True
        )
    except OSError as error:
        raise temporary_failed("there can be no temporary folder", error) from error
    with folder as path:
        yield path


def temporary_failed(what: str, error: OSError) -> FolderError:
    return FolderError(
        "temporary_failed",
        f"{what}: {error.strerror}",
        "It needs room for the whole folder; TMPDIR names another place.",
    )
