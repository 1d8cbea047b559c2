"""What is written to the list of files is read again, whatever numbers a file system reports."""

import os
from pathlib import Path

import pytest

from s3_sync.folder.journal import Held, Journal, read_journal


@pytest.mark.parametrize("inode", [1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("mtime_ns", [-(1 << 63), -2_208_988_800_000_000_000, -1, (1 << 63) - 1])
def test_reads_great_inode_numbers_and_times_before_1970(
    tmp_path: Path, inode: int, mtime_ns: int
) -> None:
    """GlusterFS and FUSE file systems have inode numbers up to 2**64."""
    files = {
        "a.py": Held("etag", 3, mtime_ns, inode, 0o100644),
        "b.py": Held("etag", 3, mtime_ns, inode, 0o100644, is_verified=False),
    }
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        journal = Journal("managed", folder, {}, fsync=False, may_keep=False)
        for path, held in files.items():
            journal.add(path, held)
        journal.close()

        assert (files, False) == read_journal("managed", folder, folder, is_shared=False)

        Journal("managed", folder, files, fsync=False, may_keep=False).close()
        assert (files, False) == read_journal("managed", folder, folder, is_shared=False)
    finally:
        os.close(folder)
