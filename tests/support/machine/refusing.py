"""
Runs a command for which system calls fail, as on a file system that lacks an operation.
"""

import shutil

import pytest

CHMOD = ("chmod", "fchmod", "fchmodat", "fchmodat2")
SYMLINK = ("symlink", "symlinkat")


def refusing(code: int, *names: str) -> tuple[str, ...]:
    """
    Return a prefix that runs a command for which these system calls fail with an error
    code; the process id stays the same. A machine may lack one of the calls.
    """
    if shutil.which("strace") is None:
        pytest.skip("system calls that fail need strace: make setup-test as root")
    calls = ",".join(f"?{name}" for name in names)
    return (
        "strace",
        "--daemonize",
        "--follow-forks",
        "--seccomp-bpf",
        "--output=/dev/null",
        f"--inject={calls}:error={code}",
    )
