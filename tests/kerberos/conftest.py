"""
Fixtures of the kerberos sidecar's tests, with a real KDC for those that need one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.runtime.recording import Log, fence, log
from tests.support.kerberos.kdc import Kdc, skip_without_kdc

if TYPE_CHECKING:
    from tests.kerberos.box import Box, Start

__all__ = ["fence", "log"]


@pytest.fixture(scope="package")
def kdc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kdc]:
    """A KDC with the principal ``airflow``; a test that stops it must start it again."""
    skip_without_kdc()
    with Kdc(tmp_path_factory.mktemp("kdc")) as kdc:
        kdc.add_principal("airflow", life="10h", renew_life="7d")
        yield kdc


@pytest.fixture
def keytab(kdc: Kdc, tmp_path: Path) -> Path:
    """The only keytab in its folder, with the KDC's current keys of ``airflow``."""
    return kdc.copy_keys(tmp_path / "keytab" / "airflow.keytab", "airflow")


@pytest.fixture
def krb5_config(kdc: Kdc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The krb5.conf that libkrb5 reads in this process."""
    path = kdc.client_config(tmp_path / "krb5.conf")
    monkeypatch.setenv("KRB5_CONFIG", str(path))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path at which a ccache is published; no file exists there yet."""
    return tmp_path / "ccache"


@pytest.fixture
def start(tmp_path: Path, keytab: Path, krb5_config: Path, log: Log) -> Start:
    """A function that starts a sidecar from variables and, if given, ccache names by principal."""
    from tests.kerberos.box import Box  # skips the test if gssapi is not compiled

    def begin(principals: Mapping[str, str] = {}, **environ: str) -> Box:
        if principals:
            items = [
                {"principal": principal, "ccache": f"{tmp_path}/cc/{name}", "mode": "0600"}
                for principal, name in principals.items()
            ]
            environ |= {"KERBEROS_PRINCIPALS": json.dumps(items), "KERBEROS_CCACHE": ""}
        return Box(tmp_path, **environ)

    return begin


@pytest.fixture
def box(start: Start) -> Box:
    return start()
