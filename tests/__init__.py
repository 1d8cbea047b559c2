"""
The tests of all sidecars.
"""

from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

Bodies = dict[str, bytes]
"""Of each path or key, what is in it."""
Texts = dict[str, str]
"""Of each name, its text: variables, headers, files."""
Facts = dict[str, Any]
"""What JSON or YAML says of one thing."""
