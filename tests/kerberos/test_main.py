"""
The first moments of the process.
"""

import subprocess
import sys

LOOK = """
import ctypes
import kerberos_sidecar.__main__ as start
from sidecar_runtime import entry

def look():
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE
    raise SystemExit

entry.import_structlog = look
start.main()
"""


def test_other_processes_are_kept_out_before_the_imports() -> None:
    """Each exec ends the protection, and imports take most of a start."""
    assert b"0\n" == subprocess.check_output([sys.executable, "-c", LOOK])
