"""
Fixtures of sync-perm's tests.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sync_perm.database.database import Database
from tests.runtime.recording import revoked
from tests.sync_perm.given import Sqlite
from tests.sync_perm.sidecar import Sidecar

__all__ = ["revoked"]


@pytest.fixture
def sqlite(tmp_path: Path) -> Sqlite:
    return Sqlite(tmp_path / "airflow.db")


@pytest.fixture
def database(sqlite: Sqlite) -> Iterator[Database]:
    found = Database(sqlite.address)
    yield found
    found.close()


@pytest.fixture
def one(tmp_path: Path, sqlite: Sqlite) -> Sidecar:
    return Sidecar(tmp_path, sqlite)
