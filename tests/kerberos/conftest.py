"""
The fixtures of the sidecar's tests; those that need one get a real KDC.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.recording import fence, log
from tests.support.kdc import Kdc, skip_without_kdc

__all__ = ["fence", "log"]


@pytest.fixture(scope="package")
def kdc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kdc]:
    """One KDC that knows ``airflow``; a test that stops it starts it again."""
    skip_without_kdc()
    with Kdc(tmp_path_factory.mktemp("kdc")) as kdc:
        kdc.add_principal("airflow", life="10h", renew_life="7d")
        yield kdc


@pytest.fixture
def keytab(kdc: Kdc, tmp_path: Path) -> Path:
    """A keytab of ``airflow`` alone in its folder, with the keys that the KDC has."""
    return kdc.copy_keys(tmp_path / "keytab" / "airflow.keytab", "airflow")


@pytest.fixture
def krb5_config(kdc: Kdc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What libkrb5 of this process reads from now on."""
    path = kdc.client_config(tmp_path / "krb5.conf")
    monkeypatch.setenv("KRB5_CONFIG", str(path))
    return path
