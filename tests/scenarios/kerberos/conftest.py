"""
Fixtures of the kerberos scenarios: a KDC per module, a principal and a folder per test.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.kerberos.kdc import Kdc, skip_without_kdc
from tests.support.kerberos.kdc_proxy import KdcProxy
from tests.support.kerberos.site import Site, site

MakeSite = Callable[[str], Site]
"""Creates a site whose tickets have the given lifetime."""

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def kdc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kdc]:
    """One KDC for all tests of a module; `running_kdc` restores it after a test."""
    skip_without_kdc()
    with Kdc(tmp_path_factory.mktemp("kdc")) as kdc:
        yield kdc


@pytest.fixture
def running_kdc(kdc: Kdc) -> Iterator[Kdc]:
    """The KDC of the module, restarted with the correct clock after the test."""
    yield kdc
    kdc.stop()
    kdc.start()


@pytest.fixture
def proxy(kdc: Kdc) -> Iterator[KdcProxy]:
    with KdcProxy(kdc.port) as proxy:
        yield proxy


@pytest.fixture
def make_site(kdc: Kdc) -> Iterator[MakeSite]:
    """A function that creates sites; they stop their processes when the test ends."""
    with ExitStack() as stack:
        yield lambda life: stack.enter_context(
            site(kdc, f"airflow{next(_numbers)}", life)
        )


@pytest.fixture
def here(make_site: MakeSite) -> Site:
    return make_site("1d")
