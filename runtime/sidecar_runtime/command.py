"""
The command line that sidecars with commands share; git-sync-wrapper has git-sync's instead.
"""

from __future__ import annotations

import argparse

from sidecar_runtime import __version__
from sidecar_runtime.settings import CommonSettings, describe


def make_parser(
    program: str,
    description: str,
    settings: type[CommonSettings],
    prefix: str,
    example: str,
    also: str,
) -> argparse.ArgumentParser:
    """
    Return a parser that knows ``--version``, and whose ``--help`` ends with the settings.

    Args:
        example: A command line that does something.
        also: What is read besides the settings.
    """
    parser = argparse.ArgumentParser(
        program,
        description=description,
        epilog=f"example:\n  {example}\n\n{describe(settings, prefix, also)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{program} {__version__}")
    return parser
