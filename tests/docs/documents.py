"""
The documents of the repository, and their parts.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("[!.]*/**/*.md")]
    if not {".venv", "dag_folder", "dist"} & {*path.parts}
)


def without_code(text: str) -> str:
    """
    Return a document without its code blocks.
    """
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def section(path: Path, title: str) -> str:
    """
    Return the text below a level-2 heading.
    """
    match = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", path.read_text(), re.DOTALL | re.MULTILINE)
    assert match, f"{path} has no section {title}"
    return match[1]


def first_column(text: str) -> list[str]:
    """
    Return the names in backticks, one or several, in the first column of tables.
    """
    cells = re.findall(r"^\| ((?:`[^`|]+`(?:, )?)+) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
