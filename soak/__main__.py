"""
``python -m soak``: runs all sidecars for some minutes; exits with 0 only if no check failed.

Each station starts, runs and ends in its own thread.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence

from soak import report
from soak.git_sync_wrapper import GitSyncWrapper
from soak.kerberos import Kerberos
from soak.s3_sync import S3Sync
from soak.station import Missing, Station
from soak.sync_perm import SyncPermStation

STATIONS: tuple[type[Station], ...] = (S3Sync, GitSyncWrapper, Kerberos, SyncPermStation)
REPORT_SECONDS = 60.0


class Crew:
    """
    The stations of one run, each in a thread.

    Attributes:
        left_out: Why stations are skipped, by name.
    """

    def __init__(self, kinds: Sequence[type[Station]], seed: str, *, verbose: bool) -> None:
        self._all = [kind(seed, self._say if verbose else self._say_flaws) for kind in kinds]
        self.left_out: dict[str, str] = {}
        self._until = 0.0
        self._running = 0
        self._at_end = threading.Semaphore(0)
        self._threads = [
            threading.Thread(target=self._live, args=(station,), name=station.name)
            for station in self._all
        ]

    def _say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def _say_flaws(self, text: str) -> None:
        if "FLAW" in text:
            self._say(text)

    def start(self, seconds: float) -> None:
        """
        Start all stations; no new round starts after this many seconds.
        """
        self._until = time.monotonic() + seconds
        for thread in self._threads:
            thread.start()
            self._running += 1

    def _live(self, station: Station) -> None:
        try:
            with station:
                station.run(self._until)
                station.close()
        except Missing as missing:
            self.left_out[station.name] = str(missing)
            self._say(f"{station.name}: skipped: {missing}")
        except Exception:  # noqa: BLE001 - any exception fails the run
            station.flaw(f"the station failed: {traceback.format_exc()}")
        finally:
            self._at_end.release()

    @property
    def stations(self) -> list[Station]:
        """
        The stations that are not skipped.
        """
        return [station for station in self._all if station.name not in self.left_out]

    def wait(self, seconds: float) -> bool:
        """
        Wait until the time is up or all stations have ended; return whether they have.
        """
        until = time.monotonic() + seconds
        # Without join(): if a signal interrupts it, Python 3.11 considers the thread ended.
        while self._running and self._at_end.acquire(timeout=max(0.0, until - time.monotonic())):
            self._running -= 1
        return self._running == 0

    def interrupt(self) -> None:
        """
        Tell all stations to end now, and wait for them.
        """
        for station in self._all:
            station.ended.set()
        while not self.wait(REPORT_SECONDS):
            pass


def main(arguments: Sequence[str]) -> int:
    """
    Run the soak, print the tables, and return the exit code.
    """
    parser = argparse.ArgumentParser("python -m soak", description=__doc__)
    add = parser.add_argument
    names = [kind.name for kind in STATIONS]
    add("--minutes", type=float, default=10.0, help="duration in minutes (default: 10)")
    add("--seed", default="", help="repeat the events of a run, not their times; default: random")
    add("--only", nargs="+", choices=names, default=names, help="run only these (default: all)")
    add("-v", "--verbose", action="store_true", help="print a line for each round")
    add("--write", action="store_true", help="rewrite docs/reference/soak.md")
    options = parser.parse_args(arguments)
    seed = options.seed or str(random.randrange(10**6))
    _clean_environment()
    kinds = [kind for kind in STATIONS if kind.name in options.only]
    print(f"SEED={seed}: {', '.join(options.only)} for {options.minutes:g} minutes", flush=True)
    # SIGTERM becomes an exception, so that all started processes end on every exit path.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    crew = Crew(kinds, seed, verbose=options.verbose)
    began = time.monotonic()
    try:
        crew.start(options.minutes * 60)
        while not crew.wait(REPORT_SECONDS):
            print(report.so_far(crew.stations, (time.monotonic() - began) / 60), flush=True)
    except KeyboardInterrupt:
        return 130
    finally:
        crew.interrupt()
    run = report.Run(options.minutes, seed, crew.stations, crew.left_out)
    print(report.summary(run))
    if options.write:
        report.write_page(run)
    return 1 if run.flaws else 0


def _clean_environment() -> None:
    """
    Remove the AWS settings, proxies and realms of this machine from the environment.
    """
    for name in list(os.environ):
        if name.startswith(("AWS_", "KRB5")) or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
