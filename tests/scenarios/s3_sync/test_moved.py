"""
An object that changes its size between the listing and its download.
"""

from pathlib import Path

import pytest

from tests.support.fake_s3 import is_get
from tests.support.faults import first
from tests.support.scripted import running


@pytest.mark.parametrize("honours_if_match", [True, False])
@pytest.mark.parametrize("newest", [b"", b"short", b"long " * 100, b"very long " * 1_000_000])
def test_object_that_grows_or_shrinks_after_the_listing_is_left_for_the_next_cycle(
    newest: bytes, honours_if_match: bool, tmp_path: Path
) -> None:
    with running(tmp_path / "dags") as synced:
        before = synced.published["a.py"]
        synced.s3.honours_if_match = honours_if_match
        synced.s3.put("dags/a.py", b"what the listing will say")
        change = first(lambda: synced.s3.put("dags/a.py", newest))
        synced.s3.inject(change, is_get("dags/a.py"), times=1)

        ended = synced.daemon.sync()
        kept = synced.published["a.py"]
        synced.daemon.sync()

        assert ("cycle_finished", 1) == (ended["event"], ended.get("files_moved"))
        assert before == kept
        assert newest == synced.published["a.py"]
