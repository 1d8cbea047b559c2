"""
``python -m soak``: runs all sidecars for some minutes; exits with 0 only if there was
no flaw.

Each sidecar runs in rounds, in its own thread: its source changes, a fault lasts for
seconds, and a process is killed, stopped or hurried meanwhile. Then all processes must
show the source again, on their own. The first process of a sidecar is never killed: it
must stay ready, and must not grow. Readers read all the time; whatever is incomplete,
mixed or unusable is a flaw.
"""

import argparse
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence

import pytest

from demo.script import prepare_process
from soak.station import Station
from soak.stations import STATIONS


def main(arguments: Sequence[str]) -> int:
    """
    Run the soak, print a line for each sidecar and its flaws, and return the exit code.
    """
    parser = argparse.ArgumentParser("python -m soak", description=__doc__)
    add = parser.add_argument
    names = [kind.name for kind in STATIONS]
    add("--minutes", type=float, default=10.0, help="duration in minutes (default: 10)")
    add(
        "--seed",
        default="",
        help="repeat the events of a run, not their times; default: random",
    )
    add(
        "--only",
        nargs="+",
        choices=names,
        default=names,
        help="run only these (default: all)",
    )
    options = parser.parse_args(arguments)
    prepare_process()
    seed = options.seed or str(random.randrange(10**6))
    print(
        f"SEED={seed}: {', '.join(options.only)} for {options.minutes:g} minutes",
        flush=True,
    )
    stations = [kind(seed) for kind in STATIONS if kind.name in options.only]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # ignored in a shell's background
    signal.signal(signal.SIGINT, signal.default_int_handler)
    until = time.monotonic() + options.minutes * 60
    threads = [threading.Thread(target=live, args=(one, until)) for one in stations]
    code = 0
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.2)
    except KeyboardInterrupt:
        code = 130
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # nothing stops the end half-way
        for one in stations:
            one.ended.set()
        for thread in threads:
            thread.join()
    for one in stations:
        print("\n  FLAW: ".join([one.line(), *one.flaws]))
    return code or int(any(one.flaws for one in stations))


def live(station: Station, until: float) -> None:
    """
    Run a station to its end; whatever it raises is a flaw.
    """
    try:
        station.run(until)
    except pytest.skip.Exception as missing:
        print(f"{station.name}: skipped: {missing}", flush=True)
    except Exception:  # noqa: BLE001
        station.flaws.append(traceback.format_exc())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
