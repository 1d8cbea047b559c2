"""
Fixtures for the tests of AWS credentials.
"""

from pathlib import Path

import pytest

from tests.runtime.aws.fake_chain import FakeChain


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeChain:
    child = FakeChain(tmp_path)
    monkeypatch.setattr("sys.executable", str(child.program))
    return child
