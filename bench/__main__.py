"""
``python -m bench NAME [arguments]``: measure one sidecar or the bundle; see its module
here.
"""

import importlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

SIDECARS = Path(__file__).parents[1] / "sidecars"


def names() -> list[str]:
    """
    Return the names of the sidecars, and of what concerns several; each has a module
    here.
    """
    return sorted(
        [
            "bundle",
            "deploy",
            "failover",
            "network",
            *(path.parent.name for path in SIDECARS.glob("*/Dockerfile")),
        ]
    )


def main(arguments: Sequence[str]) -> int:
    """
    Run the benchmark in the first argument with all other arguments; return the exit
    code.
    """
    if not arguments or arguments[0] not in names():
        print(
            f"usage: python -m bench {{{','.join(names())}}} [--help]", file=sys.stderr
        )
        return 2
    # So that context managers stop the child processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    name, *others = arguments
    importlib.import_module(f"bench.{name.replace('-', '_')}").main(others)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
