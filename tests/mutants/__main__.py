"""
Measures the tests: draws faults with a seed, plants one at a time, and runs the tests that enter
the function until one fails.

A fault that no test detects has survived. The share that is killed may not fall below the baseline.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue

from tests.mutants.copies import Copy
from tests.mutants.faults import ROOT, Fault, draw, find_faults, sources
from tests.mutants.trace import Notes

# Tests mostly wait.
SIDE_BY_SIDE = 4
BASELINE = ROOT / "bench/mutants-0.2.txt"
ALLOWED_POINTS = 3.0


@dataclass(frozen=True)
class Outcome:
    """
    The result of a fault.
    """

    fault: Fault
    killed_by: str
    """The test that failed, or pytest's exit code; empty for a survivor."""
    seconds: float
    left_out: int
    """How many test files enter the function and did not run, because the time was used up."""


class Trial:
    """
    Tries faults, several at once, each in its own copy of the tree.
    """

    def __init__(self, copies: list[Copy], notes: Notes, limit_seconds: float) -> None:
        self._copies: SimpleQueue[Copy] = SimpleQueue()
        for copy in copies:
            self._copies.put(copy)
        self._notes = notes
        self._limit_seconds = limit_seconds
        self.broken: set[str] = set()
        """Tests that also fail without a fault, and are therefore ignored."""

    def try_one(self, fault: Fault) -> Outcome:
        """
        Try a fault in the next free copy, and print a line for the result.
        """
        copy = self._copies.get()
        began = time.monotonic()
        found = self._notes.tests_of(fault.file, fault.function)
        spent = 0.0
        chosen: list[str] = []
        for test in found:
            spent += self._notes.seconds[test]
            if chosen and spent > self._limit_seconds:
                break
            chosen.append(test)
        try:
            killed_by = self._meet(fault, copy, chosen) if chosen else ""
        finally:
            self._copies.put(copy)
        seconds = time.monotonic() - began
        outcome = Outcome(fault, killed_by, seconds, len(found) - len(chosen))
        left_out = f" ({outcome.left_out} test files left out)" if outcome.left_out else ""
        verdict = f"killed by {killed_by}" if killed_by else f"SURVIVED{left_out}"
        print(f"{fault.file}:{fault.number}  {fault.operator}  {verdict}", flush=True)
        return outcome

    def _meet(self, fault: Fault, copy: Copy, tests: list[str]) -> str:
        """
        Return the first test that fails with the fault and passes without it.

        Raises:
            SystemExit: Tests cannot be collected even without the fault.
        """
        while True:
            left_out = set(self.broken)
            copy.plant(fault)
            failed = copy.run([*tests, *(f"--deselect={name}" for name in left_out)])
            copy.restore(fault)
            if not failed or not copy.run([failed] if "::" in failed else tests):
                return failed
            if "::" not in failed or failed in left_out:
                raise SystemExit(f"{' '.join(tests)} fails without a fault: {failed}")
            self.broken.add(failed)


def describe(outcomes: list[Outcome]) -> str:
    """
    Return the report: the survivors, and last the share that was killed.
    """
    survivors = [one.fault for one in outcomes if not one.killed_by]
    lines = [
        f"\n{fault.file}:{fault.number} in {fault.function or 'the module'}\n"
        f"  {fault.operator}: {fault.line}\n  -> {fault.new}"
        for fault in survivors
    ]
    killed = len(outcomes) - len(survivors)
    share = 100 * killed / len(outcomes)
    return "\n".join([*lines, f"\n{killed} of {len(outcomes)} killed: {share:.1f} %"])


def share_of(report: str) -> float:
    """
    Return the share at the end of a report, in percent.

    Raises:
        ValueError: There is none.
    """
    found = re.findall(r"killed: ([\d.]+) %", report)
    if not found:
        raise ValueError("the report names no share")
    return float(found[-1])


def main() -> int:
    """
    Run, and return the exit code: 1 if the share is more than three points below the baseline.
    """
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="seed of the draw (default: 1)")
    parser.add_argument("--count", type=int, default=100, help="faults to draw (default: 100)")
    parser.add_argument("--only", default="", help="only files whose path contains this text")
    parser.add_argument(
        "--minutes",
        type=float,
        default=4,
        help="minutes of tests for each fault, quickest files first (default: 4)",
    )
    parser.add_argument("--list", action="store_true", help="list the faults, run no tests")
    options = parser.parse_args()
    drawable = [fault for file in sources() for fault in find_faults(file)]
    chosen = [fault for fault in drawable if options.only in fault.file]
    if not chosen:
        parser.error(f"--only: no path contains {options.only}; an example is {drawable[0].file}")
    faults = draw(chosen, options.seed, options.count)
    if options.list:
        for fault in faults:
            new = " ".join(fault.new.split())
            print(f"{fault.file}:{fault.number}  {fault.operator}  {fault.line}  ->  {new}")
        return 0
    if sys.version_info < (3, 12):
        parser.error("needs Python 3.12 or later: rm -r .venv; make setup PYTHON=python3.13")
    with ExitStack() as stack, ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        copies = [stack.enter_context(Copy()) for _ in range(SIDE_BY_SIDE)]
        print("running all tests once, to see which functions they enter", flush=True)
        trial = Trial(copies, copies[0].trace(), 60 * options.minutes)
        report = describe(list(pool.map(trial.try_one, faults)))
    for name in sorted(trial.broken):
        print(f"\nalso fails without a fault: {name}")
    print(report)
    if options.only or not BASELINE.exists():
        return 0
    baseline = share_of(BASELINE.read_text())
    print(f"baseline ({BASELINE.relative_to(ROOT)}): {baseline} %")
    return 1 if share_of(report) < baseline - ALLOWED_POINTS else 0


if __name__ == "__main__":
    sys.exit(main())
