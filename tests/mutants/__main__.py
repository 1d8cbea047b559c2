"""
Measures the tests: draws faults with a seed, plants one at a time, and checks that a test fails.

A fault that no test detects has survived: it needs a test, or a reason in survivors.toml.
"""

from __future__ import annotations

import argparse
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.copies import Copy
from tests.mutants.faults import HERE, ROOT, Fault, draw, find_faults, planted, sources

SIDE_BY_SIDE = 2


@dataclass(frozen=True)
class Outcome:
    """
    The result of a fault.
    """

    fault: Fault
    killed_by: str
    """The test that failed, or pytest's exit code; empty for a survivor."""
    seconds: float


def stages(file: str) -> list[list[str]]:
    """
    Return the stages for a file, as arguments of pytest.

    First its own tests, then those of its folder, those of its package (for the runtime, those of
    every sidecar), and last the scenarios. A stage without new tests is empty.
    """
    project, _, *inner = file.removeprefix("sidecars/").split("/")
    inside = Path(*inner)
    scenarios = sorted(path.name for path in ROOT.glob("tests/scenarios/*/") if path.name[0] != "_")
    units = Path("tests", project.replace("-", "_"))
    folder = units / inside.parent
    own = sorted(ROOT.glob(f"{folder}/test_{inside.stem}*.py"))
    users = scenarios if project == "runtime" else [units.name]
    paths = [
        [str(path.relative_to(ROOT)) for path in own],
        [str(folder)],
        [str(units), "tests/docs/test_reference.py"],
        [f"tests/{name}" for name in users],
        [f"tests/scenarios/{name}" for name in users],
    ]
    seen: set[str] = set()
    runs = []
    for group in paths:
        fresh = [path for path in group if path not in seen and (ROOT / path).exists()]
        runs.append([*fresh, *(f"--ignore={path}" for path in sorted(seen))] if fresh else [])
        seen.update(fresh)
    return runs


class Trial:
    """
    Tries faults, two in parallel, each in its own copy of the tree.
    """

    def __init__(self, most_stages: int) -> None:
        self._most_stages = most_stages
        self._copies: SimpleQueue[Copy] = SimpleQueue()
        self.broken: set[str] = set()
        """Tests that also fail without a fault, and are therefore ignored."""

    def try_all(self, faults: list[Fault]) -> list[Outcome]:
        """
        Try all faults, and print a line for each result.
        """
        copies = [Copy() for _ in range(SIDE_BY_SIDE)]
        for copy in copies:
            self._copies.put(copy)
        try:
            with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
                return list(pool.map(self._try_one, faults))
        finally:
            for copy in copies:
                copy.remove()

    def _try_one(self, fault: Fault) -> Outcome:
        copy = self._copies.get()
        began = time.monotonic()
        try:
            runs = stages(fault.file)[: self._most_stages]
            killed_by = next(
                filter(None, (self._meet(fault, copy, run) for run in runs if run)), ""
            )
        finally:
            self._copies.put(copy)
        outcome = Outcome(fault, killed_by, time.monotonic() - began)
        verdict = f"killed by {killed_by}" if killed_by else "SURVIVED"
        where = f"{fault.file}:{fault.number}"
        print(f"{outcome.seconds:5.0f} s  {where}  {fault.operator}  {verdict}", flush=True)
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


def read_reasons(faults: list[Fault]) -> dict[tuple[str, ...], str]:
    """
    Return the reasons of survivors.toml by the key of their fault.

    Raises:
        SystemExit: The code of an entry no longer exists.
    """
    entries = tomllib.loads((HERE / "survivors.toml").read_text()).get("survivor", [])
    names = ("file", "function", "operator", "line")
    reasons = {tuple(entry[name] for name in names): entry["reason"] for entry in entries}
    stale = reasons.keys() - {fault.key for fault in faults}
    if stale:
        lines = "\n".join(" | ".join(key) for key in sorted(stale))
        raise SystemExit(f"survivors.toml: remove these entries, whose code is gone:\n{lines}")
    return reasons


def main() -> int:
    """
    Run, and return the exit code: 1 if a survivor has no reason, or a test fails without a fault.
    """
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="seed of the draw (default: 1)")
    parser.add_argument("--count", type=int, default=100, help="faults to draw (default: 100)")
    parser.add_argument("--only", default="", help="only files whose path contains this text")
    parser.add_argument(
        "--stages",
        type=int,
        default=5,
        help="1: only a module's own tests, 2: also those of its folder, … 5 (default): all",
    )
    parser.add_argument("--list", action="store_true", help="list the faults, run no tests")
    options = parser.parse_args()
    drawable = [fault for file in sources() for fault in find_faults(file)]
    fixed = planted()
    reasons = read_reasons([*drawable, *fixed])
    chosen = [f for f in drawable if options.only in f.file]
    if not chosen:
        parser.error(f"--only: no path contains {options.only}; an example is {drawable[0].file}")
    drawn = draw(chosen, options.seed, options.count)
    faults = [*(f for f in fixed if options.only in f.file), *drawn]
    if options.list:
        for fault in faults:
            print(f"{fault.file}:{fault.number}  {fault.operator}  {fault.line}  ->  {fault.new}")
        return 0
    trial = Trial(options.stages)
    survivors = [o.fault for o in trial.try_all(faults) if not o.killed_by]
    failed = [fault for fault in survivors if fault.key not in reasons]
    for fault in failed:
        print(f"\n{fault.file}:{fault.number} in {fault.function or 'the module'}")
        print(f"  {fault.operator}: {fault.line}\n  -> {fault.new}")
    for name in sorted(trial.broken):
        print(f"\nalso fails without a fault: {name}")
    killed, reasoned = len(faults) - len(survivors), len(survivors) - len(failed)
    print(f"\n{killed} killed, {reasoned} survived with a reason, {len(failed)} failed")
    return 1 if failed or trial.broken else 0


if __name__ == "__main__":
    sys.exit(main())
