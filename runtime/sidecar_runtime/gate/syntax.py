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
import json
import os
import sys
import warnings

# From the oldest `feature_version`:
# https://docs.python.org/3/library/ast.html#ast.parse
GRAMMARS = [f"3.{minor}" for minor in range(7, sys.version_info.minor + 1)]

PROBLEM_CHARACTERS = 500
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


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
