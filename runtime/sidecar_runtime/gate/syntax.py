"""
The syntax check of the gate, in its own process.

``python -m sidecar_runtime.gate.syntax 3.11``

Reads paths relative to the working directory from standard input, each terminated by a
NUL. Writes a line with a JSON array ``[path, line, problem]`` for each file that is not
valid in that grammar. Links are followed, but not out of the working directory. No code
of the files is run. A source that exhausts the compiler crashes this process and not
the sidecar.
"""

import ast
import io
import json
import os
import sys
import token
import tokenize
import warnings
from contextlib import suppress

# From the oldest `feature_version`:
# https://docs.python.org/3/library/ast.html#ast.parse
GRAMMARS = [f"3.{minor}" for minor in range(7, sys.version_info.minor + 1)]

PROBLEM_CHARACTERS = 500
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def problem_of(source: bytes, grammar: str) -> tuple[int | None, str] | None:
    """
    Return the line, if known, and the problem of a source; None if it compiles.
    """
    minor = int(grammar.removeprefix("3."))
    try:
        ast.parse(source, feature_version=(3, minor))
        compile(source, "<gate>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return error.lineno, error.msg
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return None, f"the compiler gives up: {str(error) or type(error).__name__}"
    if minor < 12 and (line := _new_fstring(source)):
        return line, "this f-string requires Python 3.12 or later"
    return None


def _new_fstring(source: bytes) -> int | None:
    """
    Return the line of an f-string that repeats its quotes in its braces, or has a
    backslash there: the forms of PEP 701 that people write, which `feature_version`
    does not know.
    """
    quotes: list[str] = []
    # A source that compiles may not be readable for the tokenizer: a bug of CPython
    # 3.12 and 3.13.
    with suppress(SystemError, tokenize.TokenError):
        for found in tokenize.tokenize(io.BytesIO(source).readline):
            kind, text = token.tok_name[found.type], found.string
            if kind == "FSTRING_END":
                quotes.pop()
            is_inside = bool(quotes) and kind in ("STRING", "FSTRING_START")
            if is_inside and any(mark in text for mark in (*quotes, "\\")):
                return found.start[0]
            if kind == "FSTRING_START":
                quotes.append(text.lstrip("fFrR"))
    return None


def _main() -> None:
    warnings.simplefilter("ignore")
    here = os.path.realpath(".")
    for path in os.fsdecode(sys.stdin.buffer.read()).split("\0")[:-1]:
        file = os.path.realpath(path) if os.path.islink(path) else path
        if file != path and not (file.startswith(f"{here}/") and os.path.isfile(file)):
            continue
        with open(os.open(file, _FLAGS), "rb") as opened:
            found = problem_of(opened.read(), sys.argv[1])
        if found is not None:
            # A message may quote a name of any length, and the gate keeps only so much
            # output.
            sys.stdout.write(
                json.dumps([path, found[0], found[1][:PROBLEM_CHARACTERS]]) + "\n"
            )


if __name__ == "__main__":
    _main()
