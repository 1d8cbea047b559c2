"""
Fixtures of the kerberos scenarios: one KDC a module, one principal and one folder a test.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.kdc import Kdc, skip_without_kdc
from tests.support.kdc_proxy import KdcProxy
from tests.support.site import Site, site

MakeSite = Callable[[str], Site]
"""A site whose tickets live as long as the argument says."""

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def kdc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kdc]:
    """One KDC for all tests of a module; `running_kdc` heals what a test did to it."""
    skip_without_kdc()
    with Kdc(tmp_path_factory.mktemp("kdc")) as kdc:
        yield kdc


@pytest.fixture
def running_kdc(kdc: Kdc) -> Iterator[Kdc]:
    """The module's KDC, answering and with the right clock at the end of each test."""
    yield kdc
    kdc.stop()
    kdc.start()


@pytest.fixture
def proxy(kdc: Kdc) -> Iterator[KdcProxy]:
    with KdcProxy(kdc.port) as proxy:
        yield proxy


@pytest.fixture
def make_site(kdc: Kdc) -> Iterator[MakeSite]:
    """Makes sites, and ends at the end of the test what they started."""
    with ExitStack() as stack:
        yield lambda life: stack.enter_context(site(kdc, f"airflow{next(_numbers)}", life))


@pytest.fixture
def here(make_site: MakeSite) -> Site:
    return make_site("1d")
