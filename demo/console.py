"""
The output of the demo: plain lines, colored only on a terminal.
"""

from __future__ import annotations

import os
import sys
import textwrap


def heading(text: str) -> None:
    """
    Print the title of a part or of a step.
    """
    is_painted = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(f"\n\x1b[1m{text}\x1b[0m" if is_painted else f"\n{text}", flush=True)


def say(text: str) -> None:
    """
    Print a detail of a step.
    """
    print(textwrap.indent(text, "   "), flush=True)
