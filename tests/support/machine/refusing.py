"""
Runs a command for which system calls fail, as on a file system that lacks an operation.

As a program: `refusing.py ERRNO NAME[,NAME…] COMMAND…`
"""

import ctypes
import os
import struct
import sys

import pytest

# The numbers of the system calls; x86_64 has older forms, which the C library uses as
# well.
CALLS = {
    "x86_64": {
        "fchmod": 91,
        "fchmodat": 268,
        "flock": 73,
        "renameat": 264,
        "symlinkat": 266,
    },
    "aarch64": {
        "fchmod": 52,
        "fchmodat": 53,
        "flock": 32,
        "renameat": 38,
        "symlinkat": 36,
    },
}.get(os.uname().machine, {})
CALLS |= {"chmod": 90, "symlink": 88} if os.uname().machine == "x86_64" else {}
CALLS |= {"fchmodat2": 452} if CALLS else {}
CHMOD = ("chmod", "fchmod", "fchmodat", "fchmodat2")
SYMLINK = ("symlink", "symlinkat")
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD_NUMBER, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000


def refusing(code: int, *names: str) -> tuple[str, ...]:
    """
    Return a prefix that runs a command for which these system calls fail with an error
    code.
    """
    if not CALLS:
        pytest.skip("the numbers of this machine's system calls are unknown here")
    return (sys.executable, __file__, str(code), ",".join(names))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _refuse(code: int, numbers: list[int]) -> None:
    """
    Install a seccomp filter: https://docs.kernel.org/userspace-api/seccomp_filter.html
    """
    steps = [(_LOAD_NUMBER, 0, 0, 0)]
    steps += [
        (_JUMP_IF_EQUAL, len(numbers) - index, 0, number)
        for index, number in enumerate(numbers)
    ]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _FAIL | code)]
    program = _Program(
        len(steps), b"".join(struct.pack("HBBI", *step) for step in steps)
    )
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    _refuse(
        int(sys.argv[1]),
        [CALLS[name] for name in sys.argv[2].split(",") if name in CALLS],
    )
    os.execvp(sys.argv[3], sys.argv[3:])
