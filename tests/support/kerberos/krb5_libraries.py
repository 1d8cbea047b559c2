"""
Other versions of MIT's libraries than this machine's, used with the same interpreter.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from tests.support.daemon import SidecarProcess

ROOT = Path(__file__).parents[3]
SYSTEM = "system"
LOADER = "ld-linux-x86-64.so.2"


@dataclass(frozen=True)
class Libraries:
    """
    The libkrb5 of a Debian release, with the C library that it needs.

    Args:
        folder: The folder with both; empty for the machine's own.
    """

    suite: str
    folder: str

    @classmethod
    def find_or_skip(cls, suite: str) -> Self:
        """
        Return the libraries of a Debian suite, unpacked if necessary, or the machine's own.
        """
        if suite == SYSTEM:
            return cls(suite, "")
        done = subprocess.run(
            [ROOT / "scripts" / "krb5-libraries", suite],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 3:
            pytest.skip(done.stderr.strip())
        assert 0 == done.returncode, done.stderr
        return cls(suite, done.stdout.strip())

    @property
    def version(self) -> str:
        """
        The version in libkrb5's brand string: `1.22.1`.
        """
        code = 'import ctypes; ctypes.CDLL("libkrb5.so.3"); print(open("/proc/self/maps").read())'
        done = subprocess.run(
            [*self._python(), "-c", code], capture_output=True, text=True, check=True
        )
        (path,) = set(re.findall(r"/\S*libkrb5\.so\S+", done.stdout))
        (found,) = set(re.findall(rb"KRB5_BRAND: krb5-([\d.]+)", Path(path).read_bytes()))
        return str(found, "ascii")

    def run(self, daemon: SidecarProcess) -> None:
        """
        Make a sidecar use these libraries when it is started.
        """
        daemon.wrapper = self._python() if self.folder else ()

    def are_used_by(self, pid: int) -> bool:
        """
        Whether a process has loaded these libraries, and no others.
        """
        maps = Path(f"/proc/{pid}/maps").read_text()
        loaded = set(re.findall(r"/\S*libkrb5\.so\S*", maps))
        return len(loaded) == 1 and all(path.startswith(self.folder) for path in loaded)

    def _python(self) -> tuple[str, ...]:
        if not self.folder:
            return (sys.executable,)
        # This works because a newer C library runs programs that were built for an older one.
        return (f"{self.folder}/{LOADER}", "--library-path", self.folder, sys.executable)
