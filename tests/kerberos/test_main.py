"""
The first moments of the process.
"""

import subprocess
import sys

LOOK = """
import ctypes, importlib.abc, sys

class Look(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "kerberos_sidecar.command":
            print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE
            raise SystemExit

sys.meta_path.insert(0, Look())
import kerberos_sidecar.__main__
"""


def test_other_processes_are_kept_out_before_the_imports() -> None:
    """Each exec ends the protection, and imports take most of a start."""
    assert b"0\n" == subprocess.check_output([sys.executable, "-c", LOOK])
