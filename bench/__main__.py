"""
``python -m bench NAME [arguments]``: measure one sidecar or the bundle; see its module
here.
"""

import importlib
import signal
import sys
from collections.abc import Sequence

import pytest

NAMES = (
    "bundle",
    "deploy",
    "failover",
    "git-sync-wrapper",
    "kerberos",
    "network",
    "s3-sync",
    "sync-perm",
)
"""The sidecars, and what concerns several; each has a module here."""


def main(arguments: Sequence[str]) -> int:
    """
    Run the benchmark in the first argument with all other arguments; return the exit
    code. Without its servers and programs it is skipped, as a test is.
    """
    if not arguments or arguments[0] not in NAMES:
        print(f"usage: python -m bench {{{','.join(NAMES)}}} [--help]", file=sys.stderr)
        return 2
    # So that context managers stop the child processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    name, *others = arguments
    bench = importlib.import_module(f"bench.{name.replace('-', '_')}")
    try:
        bench.main(others)
    except pytest.skip.Exception as missing:
        print(f"{name}: nothing is measured: {missing}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
