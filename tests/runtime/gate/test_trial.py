"""
The output of `check` about a gate: whether it can run.
"""

import os
from pathlib import Path

import pytest

from sidecar_runtime.checks import try_gate
from sidecar_runtime.gate.gate import Gate
from sidecar_runtime.gate.syntax import NEWEST
from tests.runtime.gate.door import Knock


@pytest.mark.parametrize(
    ("script", "is_good", "said"),
    [
        ("test pass = $(cat dag.py)", True, "ok    gate           command: it runs"),
        ("echo dag.py:1: no; exit 1", True, "refuses a folder with a DAG that does nothing"),
        ("kill -9 $$", False, "FAIL  gate           gate_undecided: "),
    ],
)
def test_prints_whether_the_command_runs(
    knock: Knock,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    script: str,
    is_good: bool,
    said: str,
) -> None:
    door = knock(script)
    before = os.listdir(tmp_path)

    assert is_good == try_gate(door.gate, "command", str(tmp_path), door.fence)
    assert said in capsys.readouterr().out
    assert before == os.listdir(tmp_path)


def test_prints_that_the_gate_is_off(
    knock: Knock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert try_gate(None, "off", str(tmp_path), knock().fence)
    assert "ok    gate           off" in capsys.readouterr().out


def test_fails_if_the_folder_is_not_writable(
    knock: Knock, capsys: pytest.CaptureFixture[str]
) -> None:
    gate: Gate = knock(grammar=NEWEST).gate

    assert not try_gate(gate, "syntax", "/proc/self", knock().fence)
    assert "cannot write to /proc/self" in capsys.readouterr().out
