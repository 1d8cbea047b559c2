"""
``python -m bench git-sync-wrapper``: follow a repository with the wrapper and with
git-sync alone.

Both follow a real git server on this machine, in turns; the volume is in memory. CPU
includes the tool and all its children, but not the server. Both count their polls under
git-sync's own name.
"""

import re
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.budgets import Outcome, at_most, at_most_part
from bench.images import install
from bench.measure import Cost, during, least, median, rss_mib, run
from bench.report import deliver, options, seconds, table, times, version_of
from tests.support.daemon import SidecarProcess, ask
from tests.support.git.git_sync import (
    GIT_SYNC,
    WRAPPER,
    GitSite,
    git_site,
    skip_without_git_sync,
)
from tests.support.http.loopback import Request
from tests.support.program import own_port
from tests.support.waiting import wait_until

PEER, OURS = TOOLS = ("git-sync", "git-sync-wrapper")
POLL = "poll, http"
COLD = "cold one-shot"
CHANGE = "one file"
MOST = {POLL: 1 / 2.5, COLD: 2.0, CHANGE: 1.3}
IDLE_MIB = 44
FIRST_POLLS = 5
POLLS = 60
LAST_POLLS = 2
AFTERMATH_SECONDS = 0.5
"""The time for hooks and pruning after the link has been swapped."""
NOOPS = re.compile(r'^git_sync_count_total\{status="noop"\} (\d+)', re.MULTILINE)
Costs = dict[tuple[str, str], list[Cost]]
"""By situation and tool."""


def main(arguments: Sequence[str]) -> None:
    """
    Measure, print the tables, and with `--write` also into the documentation.
    """
    given = options(
        "git-sync-wrapper",
        __doc__,
        arguments,
        files=(1_000, "files in the repository"),
        turns=(3, "measurements of each tool"),
    )
    skip_without_git_sync()
    costs: Costs = defaultdict(list)
    with tempfile.TemporaryDirectory() as own, site(given.files) as here:
        one_shots = {PEER: [str(here.engine)], OURS: install(OURS, Path(own))}
        for _ in range(given.turns):
            for name in TOOLS:
                costs[COLD, name].append(cold(here, one_shots[name]))
                costs[POLL, name].append(poll(here, name))
                costs[CHANGE, name].append(change(here, name))
    versions = {
        PEER: version_of(GIT_SYNC, "--version"),
        "git": version_of("git", "--version"),
        OURS: version_of(WRAPPER, "--version"),
    }
    outcomes = budgets(costs, given.files)
    deliver(OURS, {"costs": table_of(costs)}, outcomes, versions, page=given.page)


@contextmanager
def site(files: int) -> Iterator[GitSite]:
    """
    Yield a remote with Python files of about 2 KB, a hundred in each folder, and a
    volume; both are in memory.
    """
    folder = tempfile.TemporaryDirectory(dir="/dev/shm")
    text = "value = 1\n" * 200
    with folder as name, git_site(Path(name)) as here:
        here.repository.commit(
            {f"team{n // 100}/dag_{n}.py": f"# {n}\n{text}" for n in range(files)}
        )
        yield here


@contextmanager
def started(
    here: GitSite, name: str
) -> Iterator[tuple[SidecarProcess, Callable[[int], int]]]:
    """
    Run a tool on an empty volume, until it has published; yield it, and a function that
    waits for a number of polls since the start that found no change, and returns how
    many there were.
    """
    shutil.rmtree(here.root, ignore_errors=True)
    address = ("127.0.0.1", own_port())
    given = {
        "GITSYNC_HTTP_BIND": f"127.0.0.1:{address[1]}",
        "GITSYNC_HTTP_METRICS": "true",
        "GITSYNC_PERIOD": "100ms",
    }
    given |= {"GIT_SYNC_WRAPPER_LOG_LEVEL": "info"} if name == OURS else {}
    process = (here.wrapper if name == OURS else here.plain)(**given)

    def polls() -> int:
        found = NOOPS.search(ask(address, "/metrics").body)
        return int(found[1]) if found else 0

    def wait_for_polls(count: int) -> int:
        wait_until(lambda: polls() >= count, "polls", 120, step_seconds=1)
        return polls()

    try:
        here.wait_until_shown(here.repository.head(), process, 120)
        yield process, wait_for_polls
    finally:
        process.kill()


def poll(here: GitSite, name: str) -> Cost:
    """
    Return the mean cost of a poll that finds no change, with all work between two
    polls.
    """
    with started(here, name) as (process, wait_for_polls):
        before = wait_for_polls(FIRST_POLLS)
        spent = during(process.pid, lambda: wait_for_polls(before + POLLS))
        count = wait_for_polls(0) - before
        return Cost(
            spent.cpu_seconds / count, spent.wall_seconds / count, rss_mib(process.pid)
        )


def is_poll(request: Request) -> bool:
    """
    Whether a request lists refs with protocol 2, as both tools do.
    """
    return b"command=ls-refs" in request.body


def cold(here: GitSite, command: Sequence[str]) -> Cost:
    """
    Return the cost of a one-shot from an empty volume to the first commit.
    """
    shutil.rmtree(here.root, ignore_errors=True)
    given = {
        key: value for key, value in here.environment().items() if value is not None
    }
    given |= {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(here.folder / "home")}
    given |= {"GITSYNC_ONE_TIME": "true", "GIT_SYNC_WRAPPER_GIT_SYNC": str(here.engine)}
    return run(command, given)


def change(here: GitSite, name: str) -> Cost:
    """
    Return the cost of a changed file, from the commit to the work after the swap of the
    link, with all polls until then and two after it.
    """
    with started(here, name) as (process, _):
        time.sleep(AFTERMATH_SECONDS)
        content = f"now = {time.time()}\n"

        def deed() -> None:
            commit = here.repository.commit({"changed.py": content})
            here.wait_until_shown(commit, process, 120)
            here.server.forget()
            here.server.wait_for(is_poll, count=LAST_POLLS, timeout=120)

        return during(process.pid, deed)


def table_of(costs: Mapping[tuple[str, str], list[Cost]]) -> str:
    """
    Return a table of all costs; relative to git-sync's.
    """
    rows = []
    for (situation, name), found in costs.items():
        low = least(found)
        peer = least(costs[situation, PEER])
        middle = median(found)
        part = times(low.cpu_seconds / peer.cpu_seconds)
        figures = [seconds(low.cpu_seconds), seconds(middle.cpu_seconds), part]
        rows.append([f"{situation}, {name}", *figures, f"{low.rss_mib:.0f} MiB"])
    return table(["situation, tool", "CPU", "median", "relative", "memory"], rows)


def budgets(costs: Costs, files: int) -> list[Outcome]:
    """
    Return the outcomes of all budgets.
    """
    found = []
    for situation, most in MOST.items():
        ours, peer = (
            least(costs[situation, name]).cpu_seconds for name in (OURS, PEER)
        )
        what = f"{files:,} files vs. git-sync"
        found.append(at_most_part(f"{situation}, CPU", what, most, ours / peer))
    idle = least(costs[POLL, OURS]).rss_mib
    return [
        *found,
        at_most("memory", "between polls, without git-sync", IDLE_MIB, idle, "MiB"),
    ]
