"""
The command line of the sidecars with commands; git-sync-wrapper uses that of git-sync instead.
"""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any, NoReturn

from sidecar_runtime import DOCS, __version__
from sidecar_runtime.settings import CommonSettings, describe


class _Parser(ArgumentParser):
    """
    Ends the help with the documentation, and adds a hint to errors: most options that no parser
    knows are settings.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        own: dict[str, Any] = {
            "epilog": f"Documentation: {DOCS}/README.md",
            "formatter_class": RawDescriptionHelpFormatter,  # the default one breaks addresses
        }
        super().__init__(*args, **own | more)

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
) -> ArgumentParser:
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
    )
    parser.add_argument("--version", action="version", version=f"{program} {__version__}")
    return parser
