"""
What whoever can write to the volume says: each reader answers, or says nothing.
"""

from __future__ import annotations

import math
import tempfile
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

from hypothesis import example, given

from git_sync_wrapper.engine import Engine
from git_sync_wrapper.options import read_options
from git_sync_wrapper.plan import Failed
from git_sync_wrapper.settings import load_settings
from git_sync_wrapper.snapshot import LIST_MARKS, read_record, read_rows
from git_sync_wrapper.snapshot import damaged as differing
from git_sync_wrapper.volume import Volume
from sidecar_runtime.volume.snapshots import opened
from tests.support.strangers import damaged

COMMIT = "1" * 40
RECORD = (
    b'{"snapshot": "%s", "repo": "x", "ref": "main", "published_at": 1.5, '
    b'"made_by": "a", "unfiltered": ["a.bin"], "changed": ["b.py"]}' % COMMIT.encode()
)
ROWS = b'{"a.py": [1, 2, 3, 33188, 5], "b": [9, 8, 7, 33188, 5]}'


@example(RECORD.replace(b"1.5", b"1" * 400), ROWS.replace(b"9", b"9" * 400))
@example(RECORD, b'{"": [-1]}')
@given(record=damaged(RECORD), rows=damaged(ROWS))
def test_records_of_strangers_say_a_time_and_numbers_or_nothing(
    record: bytes, rows: bytes
) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name, COMMIT).mkdir()
        Path(name, "published.json").write_bytes(record)
        Path(name, "rows").write_bytes(rows)
        with opened(name) as folder:
            published = read_record(COMMIT, folder)
            found = read_rows("rows", folder) or {}
            differing(found, folder)

    assert published.commit == COMMIT
    assert math.isfinite(published.published_at or 0)
    assert all(type(n) is int for row in found.values() for n in row)


def test_no_mark_of_ours_is_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "failed").write_text("remote_timeout theirs")
    (tmp_path / "FETCH_HEAD").write_text("\ttag 'v1'")
    root = tmp_path / "root"
    (root / ".git-sync").mkdir(parents=True)
    (root / ".snapshots").mkdir()
    (root / ".git-sync/.git").symlink_to(tmp_path)
    (root / ".snapshots/failed").symlink_to(tmp_path / "failed")
    options = read_options(
        [], {"GITSYNC_REPO": "https://git.example.com", "GITSYNC_ROOT": str(root)}
    )

    assert not Engine("", options, Mock()).is_hash_or_tag
    with closing(Volume(load_settings({})[0], options)) as volume:
        assert Failed("no") == volume.failed("no")


def test_a_list_of_more_rows_than_a_legal_one_can_have_says_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "rows").write_bytes(
        b'{%b"b": [1]}' % (b'"a": [1],' * (LIST_MARKS // 2))
    )

    with opened(str(tmp_path)) as folder:
        assert None is read_rows("rows", folder)
