"""
The code of all planted faults and allowed survivors exists: `make mutants` checks it first.
"""

from __future__ import annotations

from tests.mutants.__main__ import read_reasons
from tests.mutants.faults import find_faults, planted, sources


def test_every_fault_that_is_named_can_be_made() -> None:
    drawable = [fault for file in sources() for fault in find_faults(file)]

    assert all(read_reasons([*drawable, *planted()]).values())
