"""
The command line of the sidecars with commands; git-sync-wrapper uses that of git-sync instead.
"""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from sidecar_runtime import DOCS, __version__
from sidecar_runtime.settings import CommonSettings, describe


class _Parser(argparse.ArgumentParser):
    """
    Ends the help with the documentation, and adds a hint to errors: most options that no parser
    knows are settings.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **{"epilog": f"Documentation: {DOCS}/README.md", **more})

    def error(self, message: str) -> NoReturn:
        hint = f"Run {self.prog} --help for a list."
        if " " not in self.prog:  # a command rejects only its own arguments
            hint = f"Settings are environment variables, not options. {hint}"
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
    Return a parser that supports ``--version``, and whose ``--help`` ends with the settings.

    Args:
        example: An example command line.
        also: Inputs other than the settings.
    """
    parser = _Parser(
        program,
        description=description,
        epilog=f"example:\n  {example}\n\n{describe(settings, prefix, also)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{program} {__version__}")
    return parser
