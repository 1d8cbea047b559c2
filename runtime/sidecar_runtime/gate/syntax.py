"""
The syntax check of the gate, in its own process.

``python -m sidecar_runtime.gate.syntax 3.11``

Reads paths relative to the working directory from standard input, each terminated by a NUL. Writes
a line with a JSON array ``[path, line, problem]`` for each file that is not valid in that grammar.
Links are followed, but not out of the working directory. No code of the files is run. A source
that exhausts the compiler crashes this process and not the sidecar.
"""

import ast
import io
import json
import os
import sys
import token
import tokenize
import warnings
from collections.abc import Iterator

# Oldest supported `feature_version`: https://docs.python.org/3/library/ast.html#ast.parse
OLDEST = (3, 7)
NEWEST = sys.version_info[:2]

_FSTRINGS_FREE = (3, 12)  # PEP 701
_PROBLEM_CHARACTERS = 500
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def problem_of(source: bytes, grammar: tuple[int, int]) -> tuple[int | None, str] | None:
    """
    Return the line, if known, and the problem of a source; None if it compiles.
    """
    try:
        ast.parse(source, feature_version=grammar)
        compile(source, "<gate>", "exec", dont_inherit=True)
        if grammar < _FSTRINGS_FREE <= NEWEST:
            return _new_fstring(source)
    except SyntaxError as error:
        return error.lineno, error.msg
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return None, f"the compiler gives up: {str(error) or type(error).__name__}"
    return None


def _new_fstring(source: bytes) -> tuple[int, str] | None:
    """
    Find an f-string that requires Python 3.12 or later, which `feature_version` does not detect.

    A source that compiles but that the tokenizer cannot read is not judged. This is a CPython bug,
    seen in 3.12 and 3.13 with multi-line expressions.
    """
    delimiters: list[str] = []
    last_line = 0
    try:
        for found in tokenize.tokenize(io.BytesIO(source).readline):
            kind = token.tok_name[found.type]
            if kind == "FSTRING_END":
                delimiters.pop()
            elif delimiters and _is_new(kind, found.string, delimiters, found.start[0] - last_line):
                return found.start[0], "this f-string requires Python 3.12 or later"
            if kind == "FSTRING_START":
                delimiters.append(found.string.lstrip("fFrR"))
            last_line = found.end[0]
    except (SystemError, tokenize.TokenError):
        return None
    return None


def _is_new(kind: str, text: str, delimiters: list[str], lines: int) -> bool:
    """
    Whether a token inside an f-string's braces was not allowed there before Python 3.12.

    Args:
        delimiters: The delimiters of all enclosing f-strings, the innermost last.
        lines: Line breaks between the end of the previous token and the start of this one.
    """
    # The literal text of the innermost f-string is restricted only by the f-strings around it.
    outer = delimiters[:-1] if kind == "FSTRING_MIDDLE" else delimiters
    if not outer:
        return False
    if any(delimiter in text for delimiter in outer) or kind == "COMMENT":
        return True
    is_text = kind in ("STRING", "FSTRING_START", "FSTRING_MIDDLE")
    if is_text and "\\" in text:
        return True
    has_newline = kind == "NL" or "\n" in text or lines > 0
    return has_newline and any(len(delimiter) == 1 for delimiter in outer)


def _findings(grammar: tuple[int, int], paths: list[str]) -> Iterator[list[object]]:
    for path in paths:
        target = _target(path) if os.path.islink(path) else path
        if target is None:
            continue
        with open(os.open(target, _FLAGS), "rb") as file:
            found = problem_of(file.read(), grammar)
        if found is not None:
            line, problem = found
            # A message may quote a name of any length, and the gate keeps only so much output.
            yield [path, line, problem[:_PROBLEM_CHARACTERS]]


def _target(link: str) -> str | None:
    """
    Return the target of a link if it is a file in the working directory, otherwise None.
    """
    here, target = os.path.realpath("."), os.path.realpath(link)
    return target if target.startswith(f"{here}/") and os.path.isfile(target) else None


def _main() -> None:
    warnings.simplefilter("ignore")
    major, minor = sys.argv[1].split(".")
    paths = os.fsdecode(sys.stdin.buffer.read()).split("\0")[:-1]
    for finding in _findings((int(major), int(minor)), paths):
        sys.stdout.write(json.dumps(finding) + "\n")


if __name__ == "__main__":
    _main()
