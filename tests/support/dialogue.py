"""
A program that answers each line of its standard input with one line.
"""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


class Dialogue:
    """
    A running program.
    """

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, line: str) -> str:
        """
        Send a line and return the program's answer.

        Raises:
            RuntimeError: The program ended without an answer; the text is the end of
                its log.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"no answer to {line}: {self._log.read_text()[-2000:]}")
        return answer.rstrip("\n")


@contextmanager
def dialogue(
    program: Sequence[str | Path], environment: Mapping[str, str], log: Path
) -> Iterator[Dialogue]:
    """
    Run a program during a `with` statement, and kill it at the end.

    Args:
        environment: Its complete environment.
        log: The file for its standard error.
    """
    with (
        log.open("w") as said,
        subprocess.Popen(
            program,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as process,
    ):
        try:
            yield Dialogue(process, log)
        finally:
            process.kill()
