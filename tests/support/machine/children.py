"""
The children that a process has had so far.
"""

from pathlib import Path


def children_so_far(pid: int) -> tuple[str, ...]:
    """
    Return page faults and CPU times of all ended children, and the ids of running ones.

    These are `cminflt`, `cutime` and `cstime` of proc_pid_stat(5): each is 0 if the process never
    had a child, and the first grows with every child, however short-lived.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    tasks = Path(f"/proc/{pid}/task").iterdir()
    running = [child for task in tasks for child in (task / "children").read_text().split()]
    return (fields[8], fields[13], fields[14], *running)
