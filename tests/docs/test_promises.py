"""
The sentences of `make mutants PROMISES=1` stand on their pages, and the faults that
break them still fit the code: `make mutants` itself takes long.
"""

import pytest

from tests.mutants.promises import Promise, promises


@pytest.mark.parametrize("promise", promises(), ids=lambda one: one.sentence[:60])
def test_a_promise_is_on_its_page_and_its_fault_fits_the_code(
    promise: Promise,
) -> None:
    assert [] == promise.complaints()
