"""
The tests of all sidecars.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

Bodies = dict[str, bytes]
"""Of each path or key, what is in it."""
Texts = dict[str, str]
"""Of each name, its text: variables, headers, files."""
Given = Mapping[str, str | None]
"""Variables of a process; those without a text are not set."""
Facts = dict[str, Any]
"""What JSON or YAML says of one thing."""
Plant = Callable[[Path], object]
"""What makes something at a path."""
Deed = Callable[[], object]
"""What a test does at a moment that somebody else chooses."""
