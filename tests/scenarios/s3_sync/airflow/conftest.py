"""A real Airflow for the scenarios of s3-sync."""

import pytest

from tests.support.airflow.installed import EVERY_VERSION, Airflow


@pytest.fixture(scope="session", params=EVERY_VERSION)
def airflow(request: pytest.FixtureRequest) -> Airflow:
    """A real Airflow; the first test installs it, which takes minutes."""
    if request.param != "2.11" and not request.config.getoption("--full"):
        pytest.skip("other versions of Airflow run with make test-full")
    return Airflow.install_or_skip(request.param)
