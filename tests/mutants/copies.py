"""
Copies of the tree, in which the tests run with one fault at a time.

The tests start sidecars with the console scripts next to their interpreter, and sidecars start
children with `-I`. So each copy has its own environment, in which every process imports the copy's
code; third-party packages come from `.venv`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.mutants.faults import ROOT, Fault

TEST_TIMEOUT_SECONDS = 120
STAGE_TIMEOUT_SECONDS = 3600
# For each process: a fault can fill the memory of the machine, and then other tests fail.
MEMORY_LIMIT_BYTES = 4 << 30
OURS = ("git_sync_wrapper", "kerberos_sidecar", "s3_sync", "sidecar_runtime", "sync_perm")


class Copy:
    """
    A copy of all files that git tracks or would add, in its own folder.
    """

    def __init__(self) -> None:
        """
        Copy the tree.

        Raises:
            OSError: The disk is full.
        """
        self.root = Path(tempfile.mkdtemp(prefix="mutants-"))
        # Some tests run programs as other users.
        self.root.chmod(0o755)
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.check_output(listed, cwd=ROOT, text=True).split("\0"):
            if os.path.lexists(ROOT / name) and name:
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name, follow_symlinks=False)
        self._make_environment()
        self._written = 0

    def remove(self) -> None:
        """
        Remove the copy.
        """
        shutil.rmtree(self.root)

    def _make_environment(self) -> None:
        venv = self.root / ".venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
        theirs, ours = sysconfig.get_path("purelib"), Path(sys.prefix)
        site = venv / Path(theirs).relative_to(ours)
        projects = [path.parent for path in self.root.glob("sidecars/*/pyproject.toml")]
        lines = [str(path) for path in (*projects, self.root / "runtime", theirs)]
        (site / "copy.pth").write_text("\n".join(lines) + "\n")
        for script in Path(ours, "bin").iterdir():
            here = venv / "bin" / script.name
            text = script.read_bytes()[:1000] if script.is_file() else b""
            if re.search(rf"from ({'|'.join(OURS)})\.".encode(), text):
                here.write_bytes(text.replace(str(ours).encode(), str(venv).encode(), 1))
                here.chmod(0o755)
            elif not here.exists():
                here.symlink_to(script)

    def plant(self, fault: Fault) -> None:
        """
        Write the fault into this copy.
        """
        self._write(fault.file, fault.apply((ROOT / fault.file).read_bytes()))

    def restore(self, fault: Fault) -> None:
        """
        Restore the original file.
        """
        self._write(fault.file, (ROOT / fault.file).read_bytes())

    def _write(self, file: str, content: bytes) -> None:
        path = self.root / file
        path.write_bytes(content)
        # Python compares compiled code with the size of the source and its mtime in whole seconds.
        self._written += 1
        moment = 1_000_000_000 + self._written
        os.utime(path, (moment, moment))

    def run(self, tests: list[str]) -> str:
        """
        Run tests until the first one fails.

        Args:
            tests: Arguments of pytest.

        Returns:
            The test that failed, or pytest's exit code; empty if all passed.
        """
        limited = ["prlimit", f"--data={MEMORY_LIMIT_BYTES}"]
        pytest = [*limited, str(self.root / ".venv/bin/python"), "-m", "pytest", "-x", "-q", "-rfE"]
        options = ["-p", "no:cacheprovider", f"--timeout={TEST_TIMEOUT_SECONDS}", "--tb=no"]
        process = subprocess.Popen(
            [*pytest, *options, *tests],
            cwd=self.root,
            env={**os.environ, "PATH": f"{self.root}/.venv/bin:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            said, _ = process.communicate(timeout=STAGE_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            return f"{STAGE_TIMEOUT_SECONDS} s"
        finally:
            self._end_processes()
            process.wait()
        if process.returncode in (0, 5):  # 5: no tests collected
            return ""
        named = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", said, re.MULTILINE)
        return named[1] if named else f"exit code {process.returncode}"

    def _end_processes(self) -> None:
        """
        Kill processes that the tests left, found by the unique path of this copy.
        """
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                if f"{self.root}/".encode() in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
