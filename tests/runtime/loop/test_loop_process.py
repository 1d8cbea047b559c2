"""
The loop in a separate process: SIGTERM while a cycle hangs, and a wall clock that is set.
"""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROGRAM = """
import datetime, os, sys, threading, time
from dataclasses import replace

{before}

from sidecar_runtime.health import Health, Outcome
from sidecar_runtime.loop import Loop, Pace
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.app import run_main
from sidecar_runtime import logs
from tests.runtime.recording import CHANGED, UNCHANGED, WAITING, Script, settings_of

{body}

def main():
    global loop
    logs.configure("debug", "json")
    settings = replace(settings_of(), **changes)
    loop = Loop(Script(*steps), settings, Health(), Metrics("box", "1", "r"))
    loop.pace = pace
    return loop.run()

run_main(main)
"""


def start(body: str, before: str = "") -> subprocess.Popen[bytes]:
    """Start a program that runs a loop and prints to a pipe."""
    text = PROGRAM.format(before=textwrap.dedent(before), body=textwrap.dedent(body))
    return subprocess.Popen(
        [sys.executable, "-u", "-c", text],
        cwd=Path(__file__).parents[3],
        env={"PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def read_until(process: subprocess.Popen[bytes], text: str) -> list[str]:
    """Return the lines up to the first that contains this text; fail if none does."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.decode())
        if text in lines[-1]:
            return lines
    pytest.fail(f"ended without {text!r}:\n{''.join(lines)}")


HANGS = """
changes, pace = {}, Pace()
reading, _writing = os.pipe()

def hang(fence):
    print("hanging", flush=True)
    os.read(reading, 1)      # forever, in the kernel
    return CHANGED

def hang_in_a_publish(fence):
    with fence:
        return hang(fence)

def hang_and_hold_the_interpreter(fence):
    print("hanging", flush=True)
    while True:
        sum(range(1000))
"""


@pytest.mark.parametrize("how", ["hang", "hang_in_a_publish", "hang_and_hold_the_interpreter"])
def test_sigterm_ends_the_process_while_a_cycle_hangs(how: str) -> None:
    with start(f"{HANGS}\nsteps = [{how}]") as process:
        try:
            read_until(process, "hanging")
            process.terminate()
            code = process.wait(60)
        finally:
            process.kill()

    assert code == 0


SHIFTED = """
real = datetime.datetime
shift = datetime.timedelta(0)

class Shifted(real):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + shift

datetime.datetime = Shifted     # before the scheduler and the loop import it
"""


@pytest.mark.parametrize("days", [-1, 1, -20_000, 20_000])
def test_cycles_continue_when_the_wall_clock_is_set(days: int) -> None:
    """APScheduler uses the wall clock: if that is set back by a day, it is silent for a day."""
    body = f"""
    changes, pace = {{"interval_seconds": 1.0}}, Pace(clock_grace_seconds=0.2)

    def date():
        return loop._scheduler.get_job("cycle").args

    def wait_and_set_clock(before):
        global shift
        while date() == before:     # of this cycle, not yet of the next one
            time.sleep(0.001)
        shift = datetime.timedelta(days={days})
        print("clock set", flush=True)

    def set_clock(fence):
        threading.Thread(target=wait_and_set_clock, args=[date()]).start()
        return CHANGED

    def after(fence):
        print("went on", flush=True)
        return UNCHANGED

    steps = [UNCHANGED, set_clock, after, after]
    """
    with start(body, SHIFTED) as process:
        try:
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()

    text = out.decode()
    assert text.count("went on") == 2, text
    assert ("trigger_overdue" in text) == (days < 0)
    assert text.count("trigger_overdue") <= 1
