"""
The syntax check: the pure part, and the process.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar_runtime.gate import syntax
from sidecar_runtime.gate.syntax import GRAMMARS, problem_of

NEWEST = GRAMMARS[-1]


def checked(folder: Path) -> tuple[int, bytes]:
    """
    Run the check on the file `a.py` of a folder as the gate does; return code and
    output.
    """
    done = subprocess.run(
        [sys.executable, "-I", syntax.__file__, NEWEST],
        cwd=folder,
        input=b"a.py\0",
        capture_output=True,
        timeout=60,
    )
    assert b"secret" not in done.stderr
    return done.returncode, done.stdout


# --- a single source


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"x = 1",
        b"\xef\xbb\xbfx = 1\n",
        b"# -*- coding: latin-1 -*-\nx = '\xe9'\n",
        "größe = '日本'\n".encode(),
        b"x = 1\r\ny = 2\r\n",
        b"raise SystemExit\n",
        b"while True: pass\n",
        b"async def f():\n    await x\n",
        b"'\\d'\n",  # only a warning
    ],
    ids=range(10),
)
@pytest.mark.filterwarnings("ignore")
def test_accepts_a_source_that_compiles_without_running_it(source: bytes) -> None:
    assert problem_of(source, NEWEST) is None
    assert problem_of(source, "3.8") is None


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        (b"x = 1\ndef f(:\n    pass\n", 2, "invalid syntax"),
        (b"x = 'unterminated\n", 1, "unterminated string"),
        (b"x = 1\nreturn x\n", 2, "'return' outside function"),
        (b"x = '\xe9'\n", 1, "utf-8"),
        (b"# -*- coding: nonsense -*-\n", 0, "nonsense"),
    ],
    ids=range(5),
)
def test_reports_line_and_problem_of_a_source_that_does_not_compile(
    source: bytes, line: int, said: str
) -> None:
    found = problem_of(source, NEWEST)

    assert found
    assert line == found[0] and said in found[1]


@pytest.mark.parametrize(
    "source",
    [
        b"x = 1\0\n",
        b"-" * 200_000 + b"1\n",
        b"x = " + b"(" * 5_000 + b")" * 5_000,
        b"x" + b".x" * 20_000,
        b"x = " + b"[" * 90 + b"0" + b"]" * 90 + b"\n" + b"+".join([b"1"] * 100_000),
        b"9" * 10_000,
    ],
    ids=["null byte", "signs", "brackets", "attributes", "sum", "number"],
)
def test_reports_a_source_that_exhausts_the_compiler(
    tmp_path: Path, source: bytes
) -> None:
    """Runs in a separate process, because the source may crash it."""
    (tmp_path / "a.py").write_bytes(source)

    code, said = checked(tmp_path)

    path, _, problem = json.loads(said)
    assert (0, "a.py") == (code, path) and problem


# --- older grammars

POSITIONAL = b"def f(a, /): pass\n"
MATCH = b"\nmatch x:\n    case 1: pass\n"
GENERIC = b"def f[T](x: T): pass\n"


@pytest.mark.parametrize(
    ("source", "since", "line"),
    [(POSITIONAL, 8, 1), (MATCH, 10, 3), (GENERIC, 12, 1)],
)
def test_reports_syntax_that_is_newer_than_the_grammar(
    source: bytes, since: int, line: int
) -> None:
    for minor in {7, since - 1, since}:
        if (grammar := f"3.{minor}") in GRAMMARS:
            found = problem_of(source, grammar)
            assert bool(found) == (minor < since), grammar
            assert found is None or line == found[0]


# --- as a process


@pytest.mark.parametrize("kind", ["missing", "link", "fifo"])
def test_a_missing_file_fails_and_a_foreign_link_or_fifo_yields_nothing(
    tmp_path: Path, kind: str
) -> None:
    """
    Others may have planted a link or a FIFO: neither may disclose anything or block.
    """
    folder = tmp_path / "folder"
    folder.mkdir()
    if kind == "link":
        (tmp_path / "outside.py").write_text("secret = = 1\n")
        (folder / "a.py").symlink_to("../outside.py")
    elif kind == "fifo":
        os.mkfifo(folder / "a.py")

    code, said = checked(folder)

    # The FIFO has no writer, so it reads as empty and does not block.
    assert (kind == "missing", b"") == (code != 0, said)
