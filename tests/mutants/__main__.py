"""
Measures the tests: draws faults with a seed, plants one at a time, and runs the tests
that enter the function until one fails.

A fault that no test detects has survived; at least `LEAST_PERCENT` have to be killed.
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import accumulate
from queue import SimpleQueue

from tests.mutants.copies import Copy, Edit
from tests.mutants.faults import Fault, draw, find_faults, sources
from tests.mutants.promises import Promise, promises
from tests.mutants.trace import Notes

# Tests mostly wait.
SIDE_BY_SIDE = 4
MOST_SECONDS = 240.0
"""How long the tests of one fault may take, as they did without it."""
LEAST_PERCENT = 80


class Trial:
    """
    Tries faults, several at once, each in its own copy of the tree.
    """

    def __init__(self, copies: list[Copy]) -> None:
        self._copies: SimpleQueue[Copy] = SimpleQueue()
        for copy in copies:
            self._copies.put(copy)
        self.broken: set[str] = set()
        """Tests that also fail without a fault, and are therefore ignored."""

    def killer(self, fault: Edit, tests: Sequence[str]) -> str:
        """
        Return the first test that fails with the fault, in the next free copy, and
        passes without it; or pytest's exit code; empty if the fault survives.

        Raises:
            SystemExit: Tests cannot be collected even without the fault.
        """
        copy = self._copies.get()
        try:
            return self._meet(fault, copy, tests)
        finally:
            self._copies.put(copy)

    def _meet(self, fault: Edit, copy: Copy, tests: Sequence[str]) -> str:
        while True:
            left_out = set(self.broken)
            with copy.planted(fault):
                failed = copy.run(
                    [*tests, *(f"--deselect={name}" for name in left_out)]
                )
            if not failed or not copy.run([failed] if "::" in failed else [*tests]):
                return failed
            if "::" not in failed or failed in left_out:
                raise SystemExit(f"{' '.join(tests)} fails without a fault: {failed}")
            self.broken.add(failed)


def try_drawn(trial: Trial, notes: Notes, fault: Fault) -> str:
    """
    Try a drawn fault with the tests that enter its function, the quickest files first,
    as many as take `MOST_SECONDS`; print a line for the result.

    Returns:
        As :meth:`Trial.killer`.
    """
    found = notes.tests_of(fault.file, fault.function)
    spent = accumulate(notes.seconds[test] for test in found)
    chosen = found[: max(1, sum(seconds <= MOST_SECONDS for seconds in spent))]
    killed_by = trial.killer(fault, chosen) if chosen else ""
    left_out = f" ({len(found) - len(chosen)} test files left out)"
    verdict = f"killed by {killed_by}" if killed_by else f"SURVIVED{left_out}"
    print(f"{fault.file}:{fault.number}  {fault.operator}  {verdict}", flush=True)
    return killed_by


def try_promise(trial: Trial, promise: Promise) -> bool:
    """
    Break a promise, print its sentence with the test that noticed, and return whether
    one did.
    """
    killed_by = trial.killer(promise, promise.tests)
    verdict = f"killed by {killed_by}" if killed_by else "SURVIVED"
    print(f"{promise.page}: {promise.sentence}\n  {verdict}", flush=True)
    return bool(killed_by)


def try_promises(only: str) -> int:
    """
    Break each promise; return the exit code: 1 if a fault survives.
    """
    entries = promises(only)
    wrong = [complaint for entry in entries for complaint in entry.complaints()]
    if wrong or not entries:
        print("\n".join(wrong or [f"no promise is about {only}"]))
        return 1
    with ExitStack() as stack, ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        copies = [stack.enter_context(Copy()) for _ in entries[:SIDE_BY_SIDE]]
        trial = Trial(copies)
        kept = list(pool.map(partial(try_promise, trial), entries))
    for name in sorted(trial.broken):
        print(f"\nalso fails without a fault: {name}")
    print(f"\n{sum(kept)} of {len(kept)} broken promises were noticed")
    return 0 if all(kept) else 1


def describe(faults: list[Fault], killers: list[str]) -> str:
    """
    Return the report: the survivors, and last the share that was killed.
    """
    survivors = [
        f"\n{fault.file}:{fault.number} in {fault.function or 'the module'}\n"
        f"  {fault.operator}: {fault.line}\n  -> {fault.new}"
        for fault, killer in zip(faults, killers, strict=True)
        if not killer
    ]
    killed = len(faults) - len(survivors)
    return "\n".join([*survivors, f"\n{killed} of {len(faults)} killed"])


def main() -> int:
    """
    Run, and return the exit code: 1 if too few faults are killed.
    """
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the draw (default: 1)"
    )
    parser.add_argument(
        "--count", type=int, default=100, help="faults to draw (default: 100)"
    )
    parser.add_argument(
        "--only", default="", help="only files whose path contains this text"
    )
    parser.add_argument(
        "--promises",
        action="store_true",
        help="instead of drawing faults, break each sentence of tests/mutants/promises",
    )
    options = parser.parse_args()
    if options.promises:
        return try_promises(options.only)
    drawable = [fault for file in sources() for fault in find_faults(file)]
    chosen = [fault for fault in drawable if options.only in fault.file]
    if not chosen:
        parser.error(
            f"--only: no path contains {options.only}; an example is {drawable[0].file}"
        )
    faults = draw(chosen, options.seed, options.count)
    if sys.version_info < (3, 12):
        parser.error(
            "needs Python 3.12 or later: rm -r .venv; make setup PYTHON=python3.13"
        )
    with ExitStack() as stack, ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        copies = [stack.enter_context(Copy()) for _ in range(SIDE_BY_SIDE)]
        print("running all tests once, to see which functions they enter", flush=True)
        trial = Trial(copies)
        killers = list(pool.map(partial(try_drawn, trial, copies[0].trace()), faults))
    for name in sorted(trial.broken):
        print(f"\nalso fails without a fault: {name}")
    print(describe(faults, killers))
    return 1 if killers.count("") > len(faults) * (100 - LEAST_PERCENT) / 100 else 0


if __name__ == "__main__":
    sys.exit(main())
