"""
Other versions of MIT's libraries than this machine's, used with the same interpreter.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

KRB5_LIBRARIES = Path(__file__).parents[3] / "scripts" / "krb5-libraries"
LOADER = "ld-linux-x86-64.so.2"


def python_with_libkrb5(suite: str) -> tuple[str, ...]:
    """
    Return a command prefix that runs a Python program with the libkrb5 of a Debian suite, and with
    the C library that it needs: a newer one runs programs that were built for an older one.
    """
    done = subprocess.run([KRB5_LIBRARIES, suite], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())
    assert 0 == done.returncode, done.stderr
    folder = done.stdout.strip()
    return (f"{folder}/{LOADER}", "--library-path", folder, sys.executable)
