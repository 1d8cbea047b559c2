"""
``python -m bench git-sync-wrapper``: follow a repository with the wrapper and with git-sync alone.

It uses a real git server on this machine, and git-sync on PATH or from GIT_SYNC_BIN. CPU includes
the tool and all its children, but not the server.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import git_siege
from bench.measure import Cost, during, run
from bench.pages import git_sync_wrapper_page
from bench.pages.git_sync_wrapper_page import OURS, PEER, Poll, Results
from bench.report import deliver, version_of
from tests.support.git.git_sync import GIT_SYNC, WRAPPER, GitSite, git_site, skip_reason
from tests.support.http.loopback import Request


def main(arguments: Sequence[str]) -> None:
    """
    Measure, print the tables, and with `--write` put them into the documentation.
    """
    parser = argparse.ArgumentParser("python -m bench git-sync-wrapper", description=__doc__)
    add = parser.add_argument
    add("--files", type=int, nargs="+", default=[1_000, 10_000], help="files in the repository")
    add("--polls", type=int, default=30, help="polls per tool and turn (default: 30)")
    add("--turns", type=int, default=3, help="measurements of each tool (default: 3)")
    add("--reads", type=int, default=git_siege.PROMISED, help="trees to read (default: 10,000)")
    add("--rounds", type=int, default=5, help="minimum rounds of kills and wipes (default: 5)")
    add("--write", action="store_true", help="rewrite docs/reference/benchmarks*")
    options = parser.parse_args(arguments)
    if reason := skip_reason():
        print(f"git-sync-wrapper: {reason}")
        return
    results = Results()
    for files in options.files:
        print(f"{files:,} files", flush=True)
        with site() as here:
            fill(here, files)
            for _ in range(options.turns):
                for name, poll in POLLS.items():
                    results.polls[files, name].append(poll(here, options.polls))
                for name in (PEER, OURS):
                    results.cold[files, name].append(cold(here, name))
            for name in (PEER, OURS):
                results.change[files, name] += changes(here, name, options.turns)
    with site() as here:
        fill(here, 100)
        results.rss_mib = idle_rss_mib(here)
    for name, lay_siege in git_siege.SIEGES.items():
        print(f"reading, {name}", flush=True)
        with site() as here:
            results.sieges[name] = lay_siege(here, options.reads, options.rounds)
    section = git_sync_wrapper_page.section(results, versions())
    deliver(section, is_written=options.write)


def versions() -> dict[str, str]:
    """
    Return the versions of all programs.
    """
    return {
        PEER: version_of(GIT_SYNC, "--version"),
        "git": version_of("git", "--version"),
        OURS: version_of(WRAPPER, "--version"),
    }


@contextmanager
def site() -> Iterator[GitSite]:
    """
    Yield a remote and a volume, in memory if /dev/shm exists.
    """
    memory = Path("/dev/shm")
    folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
    with folder as name, git_site(Path(name)) as here:
        yield here


def fill(here: GitSite, files: int) -> None:
    """
    Commit a number of Python files of about 2 KB, a hundred in each folder.
    """
    here.repository.commit(
        {
            f"team{number // 100}/dag_{number}.py": f"# {number}\n" + "value = 1\n" * 200
            for number in range(files)
        }
    )


def is_poll(request: Request) -> bool:
    """
    Whether a request lists refs with protocol 2, as all of these tools do.
    """
    return b"command=ls-refs" in request.body


def polled(here: GitSite, count: int) -> None:
    """
    Wait for this many more polls.
    """
    here.server.forget()
    here.server.wait_for(is_poll, count=count, timeout=600)


@contextmanager
def counted(
    here: GitSite, command: Sequence[str | Path], **more: str
) -> Iterator[subprocess.Popen[bytes]]:
    """
    Run a tool in a pid namespace if this machine allows one: it counts all processes.
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
    Whether this machine allows a pid namespace.
    """
    command = ["unshare", "--pid", "--fork", "true"]
    return subprocess.run(command, capture_output=True).returncode == 0


def started(pid: int) -> int | None:
    """
    Return the number of processes and threads started so far in the namespace below a process.
    """
    if not may_unshare():
        return None
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    command = ["nsenter", "-t", children[0], "-p", "cat", "/proc/loadavg"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def measured(here: GitSite, pid: int, polls: int) -> Poll:
    """
    Return the mean cost of a poll, over a number of polls.
    """
    polled(here, 3)
    before = started(pid)
    spent = during(pid, lambda: polled(here, polls))
    after = started(pid)
    processes = None if before is None or after is None else (after - before - 1) / polls
    cost = Cost(spent.cpu_seconds / polls, spent.wall_seconds / polls, spent.rss_mib)
    return Poll(cost, processes)


def poll_of_git_sync(here: GitSite, polls: int) -> Poll:
    """
    Measure git-sync alone, polling ten times a second.
    """
    clear(here)
    with counted(here, [here.engine], GITSYNC_PERIOD="100ms") as process:
        here.wait_until_shown(here.repository.head(), timeout_seconds=120)
        return measured(here, process.pid, polls)


def poll_of_ls_remote(here: GitSite, polls: int) -> Poll:
    """
    Measure a shell that runs `git ls-remote` in a loop.
    """
    loop = f"while :; do git ls-remote {here.server.url()} HEAD; sleep 0.1; done"
    with counted(here, ["sh", "-c", loop]) as process:
        return measured(here, process.pid, polls)


def poll_of_ours(here: GitSite, polls: int) -> Poll:
    """
    Measure the wrapper, polling ten times a second; git-sync does not run.
    """
    clear(here)
    more = wrapped(here, GITSYNC_PERIOD="100ms")
    with counted(here, [WRAPPER], **more) as process:
        here.wait_until_shown(here.repository.head(), timeout_seconds=120)
        polled(here, 20)
        return measured(here, process.pid, polls * 5)


POLLS: dict[str, Callable[[GitSite, int], Poll]] = {
    PEER: poll_of_git_sync,
    "git ls-remote in a loop": poll_of_ls_remote,
    OURS: poll_of_ours,
}


def idle_rss_mib(here: GitSite) -> float:
    """
    Return the memory of the wrapper between polls, without git-sync's.
    """
    wrapper = here.publish(GIT_SYNC_WRAPPER_LOG_LEVEL="info")
    polled(here, 20)
    return wrapper.rss_mib()


def clear(here: GitSite) -> None:
    """
    Empty the volume.
    """
    subprocess.run(["rm", "-rf", str(here.root)], check=True)


def wrapped(here: GitSite, **more: str) -> dict[str, str]:
    """
    Return the settings of a wrapper.
    """
    return {
        "GIT_SYNC_WRAPPER_GIT_SYNC": str(here.engine),
        "GIT_SYNC_WRAPPER_HTTP_BIND": "127.0.0.1:0",
        **more,
    }


def cold(here: GitSite, name: str) -> Cost:
    """
    Return the cost of a one-shot from an empty volume to the first commit.
    """
    clear(here)
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(here.folder / "home"),
        **{key: value for key, value in here.environment().items() if value is not None},
        "GITSYNC_ONE_TIME": "true",
        **(wrapped(here) if name == OURS else {}),
    }
    return run([WRAPPER if name == OURS else here.engine], environment)


def changes(here: GitSite, name: str, turns: int) -> list[Cost]:
    """
    Return the costs of a changed file, from the commit to the swap of the link, with all polls.
    """
    costs = []
    clear(here)
    command = [WRAPPER] if name == OURS else [here.engine]
    more = wrapped(here) if name == OURS else {}
    with counted(here, command, **more, GITSYNC_PERIOD="100ms") as process:
        here.wait_until_shown(here.repository.head(), timeout_seconds=120)
        for _ in range(turns):
            polled(here, 3)

            def deed() -> None:
                commit = here.repository.commit({"changed.py": f"now = {time.time()}\n"})
                here.wait_until_shown(commit, timeout_seconds=120)
                polled(here, 2)  # the work after the swap: hooks, pruning

            costs.append(during(process.pid, deed))
    return costs
