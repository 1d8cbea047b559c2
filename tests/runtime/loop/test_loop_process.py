"""
The loop in a separate process: SIGTERM while a cycle hangs.
"""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os
from sidecar_runtime.app import run_main
from sidecar_runtime.health import Health
from sidecar_runtime.loop import Loop
from sidecar_runtime.metrics import Metrics
from tests.runtime.recording import Script, settings_of

reading, _writing = os.pipe()

def hang(fence):
    print("hanging", flush=True)
    os.read(reading, 1)      # forever, in the kernel

def hang_in_a_publish(fence):
    with fence:
        hang(fence)

def hang_and_hold_the_interpreter(fence):
    print("hanging", flush=True)
    while True:
        sum(range(1000))

run_main(lambda: Loop(Script({how}), settings_of(), Health(), Metrics("box", "1", "r")).run())
"""


@pytest.mark.parametrize("how", ["hang", "hang_in_a_publish", "hang_and_hold_the_interpreter"])
def test_sigterm_ends_the_process_while_a_cycle_hangs(how: str) -> None:
    command = [sys.executable, "-u", "-c", PROGRAM.format(how=how)]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "hanging\n"
            process.terminate()
            code = process.wait(60)
        finally:
            process.kill()

    assert code == 0
