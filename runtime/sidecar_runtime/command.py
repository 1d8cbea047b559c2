"""
The command line that sidecars with commands share; git-sync-wrapper has git-sync's instead.
"""

from __future__ import annotations

import argparse
from typing import NoReturn

from sidecar_runtime import __version__
from sidecar_runtime.settings import CommonSettings, describe


class _Parser(argparse.ArgumentParser):
    """
    Says where settings come from: most that is wrong is one of them, given as an option.
    """

    def error(self, message: str) -> NoReturn:
        program = self.prog.split()[0]
        hint = f"Settings are environment variables, not options: {program} --help lists them."
        super().error(f"{message}\n{hint}")


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
    parser = _Parser(
        program,
        description=description,
        epilog=f"example:\n  {example}\n\n{describe(settings, prefix, also)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{program} {__version__}")
    return parser
