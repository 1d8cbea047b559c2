"""
What git, a server, or whoever can write to the volume says: each reader answers, or
raises the one error that it documents.
"""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given

from git_sync_wrapper.git import Git
from git_sync_wrapper.logins import Access
from git_sync_wrapper.options import read_options
from git_sync_wrapper.snapshot import read_record, read_rows
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests.support.strangers import damaged

COMMIT = "1" * 40
REPO = {"GITSYNC_REPO": "https://git.example.com/dags.git", "GITSYNC_REF": "main"}
RECORD = (
    b'{"snapshot": "%s", "repo": "x", "ref": "main", "published_at": 1.5, '
    b'"made_by": "a", "unfiltered": ["a.bin"], "changed": ["b.py"]}' % COMMIT.encode()
)
ROWS = b'{"a.py": [1, 2, 3, 33188, 5], "b": [9, 8, 7, 33188, 5]}'


class Told(Git):
    """
    git, whose process has said this.
    """

    answer = b""

    def _run(self, *_: Any, **__: Any) -> bytes:
        return self.answer


@given(answer=damaged(f"{COMMIT}\trefs/heads/main\n{COMMIT}\tHEAD\n".encode()))
def test_a_poll_names_a_commit_of_the_ref_or_one_reason(answer: bytes) -> None:
    git = Told(read_options([], REPO), {}, "/nowhere")
    git.answer = answer

    found, reason = "", ""
    try:
        found = git.poll(Access([], "/dev/null"), Fence())
    except SidecarError as error:
        reason = error.reason

    assert bool(found) != bool(reason)
    assert found in answer.decode(errors="replace")
    assert reason in ("", "ref_not_found")


@given(record=damaged(RECORD), rows=damaged(ROWS))
def test_records_of_strangers_say_a_time_and_numbers_or_nothing(
    record: bytes, rows: bytes
) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name, COMMIT).mkdir()
        Path(name, "published.json").write_bytes(record)
        Path(name, "rows").write_bytes(rows)
        folder = os.open(name, os.O_RDONLY)
        try:
            published = read_record(COMMIT, folder)
            found = read_rows("rows", folder)
        finally:
            os.close(folder)

    assert published.commit == COMMIT
    assert math.isfinite(published.published_at or 0)
    assert all(type(n) is int for row in (found or {}).values() for n in row)
