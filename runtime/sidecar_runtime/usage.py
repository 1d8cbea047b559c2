"""
The command line of a sidecar, and its ``--help``. The daemon of s3-sync starts without argparse.
"""

import textwrap
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from sidecar_runtime import DOCS, __version__
from sidecar_runtime.settings import CommonSettings, Spec, specs_of

_ENDS = f"exit codes and signals: {DOCS}/reference/settings.md#exit-codes"


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
    parser = ArgumentParser(
        program,
        description=description,
        formatter_class=RawDescriptionHelpFormatter,  # the default one breaks addresses
        epilog=f"example:\n  {example}\n\n{describe(settings, prefix, also)}",
    )
    parser.add_argument("--version", action="version", version=f"{program} {__version__}")
    return parser


def describe(cls: type[Any], prefix: str, also: str) -> str:
    """
    Return the settings, exit codes and signals as text for ``--help``.

    Args:
        also: Inputs other than the settings.
    """
    lines = ["settings (environment; an empty variable counts as unset):"]
    for spec in specs_of(cls, prefix).values():
        lines += ["", f"  {spec.variable}  ({_default(spec)})"]
        for text in (spec.text, spec.allowed and f"Allowed: {spec.allowed}."):
            lines += textwrap.wrap(text, 88, initial_indent="      ", subsequent_indent="      ")
    lines += ["", *textwrap.wrap(f"also reads: {also}", 92, subsequent_indent="  ")]
    return "\n".join([*lines, "", _ENDS, "", f"Documentation: {DOCS}/README.md"])


def _default(spec: Spec) -> str:
    if spec.default is None:
        return "required" if spec.required else "unset"
    return f"default {spec.default or 'empty'}"
