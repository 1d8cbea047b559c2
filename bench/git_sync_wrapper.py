"""
``python -m bench git-sync-wrapper``: a repository followed, by us and by git-sync alone.

A real git server on this machine; the real git-sync where it is on PATH (or GIT_SYNC_BIN names
it), else a stand-in, of which the page says so. CPU is of the tool with all its children, the
server is not measured.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Cost, during, least, run
from bench.report import machine, seconds, table, times, version_of, write_part
from tests.support.git_server import GitServer
from tests.support.git_sync import ENGINES, WRAPPER, GitSite, Readers
from tests.support.loopback import Request

OURS = "git-sync-wrapper"
BUDGET = 50
RETAIN_SECONDS = 30


@dataclass(frozen=True)
class Poll:
    """
    What one poll without a change took.

    Args:
        processes: Started for it, threads included; None where this machine does not say.
        rss_mib: Of all processes, between polls.
    """

    cpu_seconds: float
    processes: float | None
    rss_mib: float


def main(arguments: Sequence[str]) -> None:
    """
    Measure, print the tables, and with `--write` put them into the documentation.
    """
    parser = argparse.ArgumentParser("python -m bench git-sync-wrapper", description=__doc__)
    add = parser.add_argument
    add("--files", type=int, nargs="+", default=[1_000, 10_000], help="in the repository")
    add("--polls", type=int, default=60, help="of each tool (default: 60)")
    add("--turns", type=int, default=3, help="of each cold start and commit (default: 3)")
    add("--commits", type=int, default=60, help="while readers read (default: 60)")
    add("--write", action="store_true", help="rewrite docs/reference/benchmarks.md")
    options = parser.parse_args(arguments)
    parts: dict[str, str] = {}
    polls: dict[int, dict[str, Poll]] = {}
    changes: dict[int, dict[str, tuple[Cost, Cost]]] = {}
    for files in options.files:
        with site() as here:
            fill(here, files)
            polls[files] = {name: poll(here, options.polls) for name, poll in POLLS.items()}
            changes[files] = {
                name: (cold(here, name, options.turns), change(here, name, options.turns))
                for name in ("git-sync", OURS)
            }
    parts["poll"] = poll_table(polls)
    parts["budgets"] = budget_table(polls)
    parts["change"] = change_table(changes)
    parts["readers"] = readers_table(options.commits)
    parts["machine"] = machine(versions())
    for name, text in parts.items():
        if options.write:
            write_part(f"{OURS} {name}", text)
        else:
            print(f"{name}\n{text}")


def versions() -> dict[str, str]:
    """
    What took part; a stand-in is called one.
    """
    real = "git-sync" in ENGINES
    name = "git-sync" if real else "a stand-in for git-sync"
    return {
        name: version_of(engine(), "--version"),
        "git": version_of("git", "--version"),
        OURS: version_of(WRAPPER, "--version"),
    }


def engine() -> Path:
    """
    The real git-sync, or else its stand-in.
    """
    return ENGINES.get("git-sync", ENGINES["stand-in"])


@contextmanager
def site() -> Iterator[GitSite]:
    """
    A remote and a volume in memory, if there is some.
    """
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        with GitServer(folder / "remote") as server:
            here = GitSite(engine(), server, folder / "pod")
            here.folder.mkdir()
            try:
                yield here
            finally:
                here.close()


def fill(here: GitSite, files: int) -> None:
    """
    Commit so many Python files of about 2 KB, a hundred in each folder.
    """
    here.repository.commit(
        {
            f"team{number // 100}/dag_{number}.py": f"# {number}\n" + "value = 1\n" * 200
            for number in range(files)
        }
    )


def is_poll(request: Request) -> bool:
    """
    Whether a request asks what refs there are, by protocol 2, as all of these tools do.
    """
    return b"command=ls-refs" in request.body


def polled(here: GitSite, count: int) -> None:
    """
    Wait for so many more polls.
    """
    here.server.forget()
    here.server.wait_for(is_poll, count=count, timeout=600)


@contextmanager
def counted(
    here: GitSite, command: Sequence[str | Path], **more: str
) -> Iterator[subprocess.Popen[bytes]]:
    """
    Run a tool in a pid namespace, where this machine allows one: it numbers all that is started.
    """
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(here.folder / "home"),
        **{name: value for name, value in here.environment().items() if value is not None},
        **more,
    }
    (here.folder / "home").mkdir(exist_ok=True)
    namespace = ["unshare", "--pid", "--fork", "--kill-child"] if may_unshare() else []
    process = subprocess.Popen(
        [*namespace, *map(str, command)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        here.close()


@functools.cache
def may_unshare() -> bool:
    """
    Whether there can be a pid namespace.
    """
    command = ["unshare", "--pid", "--fork", "true"]
    return subprocess.run(command, capture_output=True).returncode == 0


def started(pid: int) -> int | None:
    """
    How many processes and threads have been started so far in the namespace below a process.
    """
    if not may_unshare():
        return None
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    command = ["nsenter", "-t", children[0], "-p", "cat", "/proc/loadavg"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def measured(here: GitSite, pid: int, polls: int) -> Poll:
    """
    What so many polls cost, each.
    """
    polled(here, 3)
    before = started(pid)
    cost = during(pid, lambda: polled(here, polls))
    after = started(pid)
    processes = None if before is None or after is None else (after - before - 1) / polls
    return Poll(cost.cpu_seconds / polls, processes, cost.rss_mib)


def poll_of_git_sync(here: GitSite, polls: int) -> Poll:
    """
    git-sync alone, ten times a second.
    """
    with counted(here, [here.engine], GITSYNC_PERIOD="100ms") as process:
        here.wait_until_shown(here.repository.head(), timeout_seconds=120)
        return measured(here, process.pid, polls)


def poll_of_ls_remote(here: GitSite, polls: int) -> Poll:
    """
    A shell that asks by `git ls-remote`, again and again.
    """
    loop = f"while :; do git ls-remote {here.server.url()} HEAD; sleep 0.1; done"
    with counted(here, ["sh", "-c", loop]) as process:
        return measured(here, process.pid, polls)


def poll_of_ours(here: GitSite, polls: int) -> Poll:
    """
    The wrapper, ten times a second.
    """
    more = wrapped(here, GITSYNC_PERIOD="100ms")
    with counted(here, [WRAPPER], **more) as process:
        here.wait_until_shown(here.repository.head(), timeout_seconds=120)
        polled(here, 20)
        return measured(here, process.pid, polls * 5)


POLLS: dict[str, Callable[[GitSite, int], Poll]] = {
    "git-sync": poll_of_git_sync,
    "git ls-remote in a loop": poll_of_ls_remote,
    OURS: poll_of_ours,
}


def wrapped(here: GitSite, **more: str) -> dict[str, str]:
    """
    The settings of a wrapper.
    """
    return {
        "GIT_SYNC_WRAPPER_GIT_SYNC": str(here.engine),
        "GIT_SYNC_WRAPPER_HTTP_BIND": "127.0.0.1:0",
        "GIT_SYNC_WRAPPER_JITTER": "0",
        "GIT_SYNC_WRAPPER_LOG_FORMAT": "json",
        **more,
    }


def cold(here: GitSite, name: str, turns: int) -> Cost:
    """
    From nothing to the first commit, and the end of the process.
    """
    costs = []
    for _ in range(turns):
        subprocess.run(["rm", "-rf", str(here.root)], check=True)
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(here.folder / "home"),
            **{key: value for key, value in here.environment().items() if value is not None},
            "GITSYNC_ONE_TIME": "true",
            **(wrapped(here) if name == OURS else {}),
        }
        costs.append(run([WRAPPER if name == OURS else here.engine], environment))
    return least(costs)


def change(here: GitSite, name: str, turns: int) -> Cost:
    """
    One file changed: from the commit to the link, polls of every 100 ms included.
    """
    costs = []
    command = [WRAPPER] if name == OURS else [here.engine]
    more = wrapped(here) if name == OURS else {}
    with counted(here, command, **more, GITSYNC_PERIOD="100ms") as process:
        here.wait_until_shown(here.repository.head(), timeout_seconds=120)
        for _ in range(turns):
            polled(here, 3)

            def deed() -> None:
                commit = here.repository.commit({"changed.py": f"now = {time.time()}\n"})
                here.wait_until_shown(commit, timeout_seconds=120)
                polled(here, 2)  # what follows the link: hooks, pruning

            costs.append(during(process.pid, deed))
    return least(costs)


def readers_table(commits: int) -> str:
    """
    Trees that were not whole, or not there, while commits came as fast as they were taken.
    """
    rows = []
    for name in ("git-sync", OURS):
        with site() as here:
            here.commit_revision(1)
            settings = {} if name == "git-sync" else wrapped(here)
            command = [here.engine if name == "git-sync" else WRAPPER]
            with counted(here, command, **settings, GITSYNC_PERIOD="50ms"):
                here.wait_until_shown(here.repository.head(), timeout_seconds=60)
                readers = Readers(here.link, RETAIN_SECONDS)
                try:
                    for number in range(2, 2 + commits):
                        here.wait_until_shown(here.commit_revision(number), timeout_seconds=60)
                    seen = readers.stop()
                finally:
                    readers.kill()
        failed = len(seen["flaws"]) + seen["gone"]
        rows.append([name, f"{commits:,}", f"{seen['trees']:,}", f"{failed:,}"])
    return table(["tool", "commits", "trees read", "not whole, or not there"], rows)


def poll_table(polls: dict[int, dict[str, Poll]]) -> str:
    """
    By size and tool.
    """
    rows = [
        [
            f"{files:,}",
            name,
            seconds(poll.cpu_seconds),
            "?" if poll.processes is None else f"{poll.processes:.1f}",
            f"{poll.rss_mib:.0f} MiB",
        ]
        for files, found in polls.items()
        for name, poll in found.items()
    ]
    return table(["files", "tool", "CPU of a poll", "processes started", "memory"], rows)


def budget_table(polls: dict[int, dict[str, Poll]]) -> str:
    """
    What was promised, and what is.
    """
    rows = []
    for files, found in polls.items():
        ratio = found["git-sync"].cpu_seconds / found[OURS].cpu_seconds
        verdict = "met" if ratio >= BUDGET else "**missed**"
        what = f"poll, {files:,} files, CPU, of git-sync"
        rows.append([what, f"≤ 1/{BUDGET}", f"1/{ratio:.0f}", verdict])
    return table(["what", "budget", "measured", ""], rows)


def change_table(changes: dict[int, dict[str, tuple[Cost, Cost]]]) -> str:
    """
    Cold starts and commits.
    """
    rows = []
    for files, found in changes.items():
        for what, place in (("cold", 0), ("one file changed", 1)):
            base = found["git-sync"][place]
            for name, costs in found.items():
                cost = costs[place]
                ratio = times(cost.cpu_seconds / base.cpu_seconds)
                rows.append(
                    [
                        f"{what}, {files:,} files",
                        name,
                        seconds(cost.cpu_seconds),
                        ratio,
                        seconds(cost.wall_seconds),
                    ]
                )
    return table(["what", "tool", "CPU", "of git-sync", "wall"], rows)
