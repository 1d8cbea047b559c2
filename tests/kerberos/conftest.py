"""
The fixtures of the sidecar's tests; those that need one get a real KDC.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.runtime.recording import Log, fence, log
from tests.support.kdc import Kdc, skip_without_kdc

if TYPE_CHECKING:
    from tests.kerberos.box import Box, Start

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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a ccache is published; nothing is there."""
    return tmp_path / "ccache"


@pytest.fixture
def start(tmp_path: Path, keytab: Path, krb5_config: Path, log: Log) -> Start:
    """Start a sidecar; principals with the names of their ccaches come before its variables."""
    from tests.kerberos.box import Box  # where gssapi is not compiled, who imports it is skipped

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
