"""
The rules that exclude files of a folder from a release.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from pathspec import GitIgnoreSpec

from s3_sync.publisher.local.folder_errors import FolderError

NAME = ".s3-sync-ignore"

# Files that version control, Python and editors leave in a folder. The last matching rule wins, so
# a later `!rule` includes a file again. `.airflowignore` is content: Airflow reads it.
DEFAULT_RULES = (
    NAME,
    ".git",
    ".hg/",
    ".svn/",
    "__pycache__/",
    "*.py[co]",
    ".venv/",
    ".mypy_cache/",
    ".pytest_cache/",
    ".ruff_cache/",
    ".ipynb_checkpoints/",
    ".idea/",
    ".vscode/",
    ".DS_Store",
    "*~",
    ".*.sw[a-p]",
)


class Ignore:
    """
    The rules for one folder, with the syntax of ``.gitignore``.

    Args:
        exclude: More rules, from the command line.

    Raises:
        FolderError: A rule is invalid, or the file with rules cannot be read.
    """

    def __init__(self, folder: str, exclude: Sequence[str]) -> None:
        self._spec = GitIgnoreSpec.from_lines(DEFAULT_RULES)
        for number, rule in enumerate(_read(os.path.join(folder, NAME)), start=1):
            self._add(rule, f"line {number} of {NAME}")
        for rule in exclude:
            self._add(rule, "--exclude")

    def __call__(self, path: str, *, is_folder: bool) -> bool:
        """
        Whether a path is excluded; not called for paths in an excluded folder.
        """
        return bool(self._spec.match_file(f"{path}/" if is_folder else path))

    def _add(self, rule: str, where: str) -> None:
        try:
            self._spec += GitIgnoreSpec.from_lines([rule])
        except ValueError as error:
            raise FolderError(
                "ignore_rule_invalid", f"{where}: {rule!r} is not a valid .gitignore pattern"
            ) from error


def _read(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        if not os.access(os.path.dirname(path), os.R_OK | os.X_OK):
            return []  # the folder itself is unreadable, and is reported later
        raise FolderError("ignore_rule_invalid", f"cannot read {path}: {error}") from error
