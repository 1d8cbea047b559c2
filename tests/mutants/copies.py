"""
Copies of the tree, in which the tests run with one fault at a time.

The tests start sidecars with the console scripts next to their interpreter, and
sidecars start children with `-I`. So each copy has its own environment, in which every
process imports the copy's code; third-party packages come from `.venv`.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, Self

from tests import ROOT
from tests.mutants.faults import tracked
from tests.mutants.trace import Notes

TEST_TIMEOUT_SECONDS = 120
RUN_TIMEOUT_SECONDS = 3600
# For each process: a fault can fill the memory of the machine, and then other tests
# fail.
MEMORY_LIMIT_BYTES = 4 << 30
TRACED = "import tests.mutants.trace; tests.mutants.trace.start()"
# Not tests of the code that faults are planted in, or they need more than this machine.
IGNORED = ("tests/images", "tests/cluster", "tests/demo")


class Edit(Protocol):
    """
    A change of one file.
    """

    @property
    def file(self) -> str: ...

    def apply(self, original: bytes) -> bytes: ...


class Copy:
    """
    A copy of all files that git tracks or would add, in its own folder; removed with
    the block.
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
        for name in tracked():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, self.root / name, follow_symlinks=False)
        # Installed by the first test that needs them: once, and not for each copy.
        (ROOT / ".airflow").mkdir(exist_ok=True)
        (self.root / ".airflow").symlink_to(ROOT / ".airflow")
        self._make_environment()
        self._written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.root)

    def _make_environment(self) -> None:
        venv = self.root / ".venv"
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", venv], check=True
        )
        theirs = Path(sysconfig.get_path("purelib"))
        ours = Path(sys.prefix)
        self._site = venv / theirs.relative_to(ours)
        # The editable installs of this repository's projects, each a folder in a file.
        installed = [
            Path(path.read_text().partition("\n")[0]) for path in theirs.glob("*.pth")
        ]
        projects = [
            self.root / path.relative_to(ROOT)
            for path in installed
            if ROOT in path.parents
        ]
        (self._site / "copy.pth").write_text(
            "\n".join([str(path) for path in (*projects, theirs)]) + "\n"
        )
        for script in Path(ours, "bin").iterdir():
            here = venv / "bin" / script.name
            text = script.read_bytes() if script.is_file() else b""
            if text.startswith(f"#!{ours}/".encode()):
                here.write_bytes(text.replace(bytes(ours), bytes(venv), 1))
                here.chmod(0o755)
            elif not here.exists():
                here.symlink_to(script)

    @contextmanager
    def planted(self, fault: Edit) -> Iterator[None]:
        """
        A context in which this copy has the fault.
        """
        original = (ROOT / fault.file).read_bytes()
        self._write(fault.file, fault.apply(original))
        yield
        self._write(fault.file, original)

    def _write(self, file: str, content: bytes) -> None:
        path = self.root / file
        path.write_bytes(content)
        # Python compares compiled code with the size of the source and its mtime in
        # whole seconds.
        self._written += 1
        moment = 1_000_000_000 + self._written
        os.utime(path, (moment, moment))

    def trace(self) -> Notes:
        """
        Run all tests once without a fault, and return what they enter.
        """
        notes = self.root / ".trace"
        notes.mkdir()
        notes.chmod(0o1777)
        hook = self._site / "trace.pth"
        hook.write_text(f"{self.root}\n{TRACED}\n")
        ignored = [f"--ignore={name}" for name in IGNORED]
        self._pytest(
            [
                "-p",
                "tests.mutants.trace",
                "--numprocesses=5",
                "--dist=loadfile",
                "--no-loadscope-reorder",
                *ignored,
            ]
        )
        hook.unlink()
        return Notes(notes)

    def run(self, tests: list[str]) -> str:
        """
        Run tests until the first one fails.

        Args:
            tests: Arguments of pytest.

        Returns:
            The test that failed, or pytest's exit code; empty if all passed.
        """
        code, said = self._pytest(["-x", *tests])
        if code in (0, 5):  # 5: no tests collected
            return ""
        named = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", said, re.MULTILINE)
        return named[1] if named else f"exit code {code}"

    def _pytest(self, arguments: list[str]) -> tuple[int, str]:
        """
        Run pytest; return its exit code (or that of its end by a signal) and its
        output.
        """
        pytest = [
            "prlimit",
            f"--data={MEMORY_LIMIT_BYTES}",
            str(self.root / ".venv/bin/python"),
            "-m",
            "pytest",
            "-q",
            "-rfE",
            "-p",
            "no:cacheprovider",
            f"--timeout={TEST_TIMEOUT_SECONDS}",
            "--tb=no",
        ]
        process = subprocess.Popen(
            [*pytest, *arguments],
            cwd=self.root,
            env={**os.environ, "PATH": f"{self.root}/.venv/bin:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said = ""
        try:
            said, _ = process.communicate(timeout=RUN_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        finally:
            self._end_processes()
            process.wait()
        return process.returncode, said

    def _end_processes(self) -> None:
        """
        Kill processes that the tests left, found by the unique path of this copy.
        """
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                if f"{self.root}/".encode() in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
