"""
The code of all planted faults and allowed survivors exists: `make mutants` checks this first.
"""

from __future__ import annotations

from tests.mutants.__main__ import read_reasons
from tests.mutants.faults import find_faults, planted, sources


def test_all_planted_faults_and_survivors_match_the_code() -> None:
    drawable = [fault for file in sources() for fault in find_faults(file)]

    assert all(read_reasons([*drawable, *planted()]).values())
