"""
Temporary folders of a publisher, and the error if they cannot be used.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from s3_sync.publisher.local.folder_errors import FolderError


@contextmanager
def scratch(purpose: str) -> Iterator[str]:
    """
    Yield a temporary folder, removed at the end.

    Raises:
        FolderError: It cannot be created.
    """
    try:
        folder = tempfile.TemporaryDirectory(
            prefix=f"s3-sync-{purpose}-", ignore_cleanup_errors=True
        )
    except OSError as error:
        raise temporary_failed("cannot create a temporary folder", error) from error
    with folder as path:
        yield path


def temporary_failed(what: str, error: OSError) -> FolderError:
    return FolderError(
        "temporary_failed",
        f"{what}: {error.strerror}",
        "The temporary folder needs room for all files. Set TMPDIR to use another place.",
    )
