"""
Files that change while a daemon may be reading them.
"""

from pathlib import Path


def replace(path: Path, content: str | bytes) -> None:
    """
    Replace a file at once, as kubelet does: its readers get the old or the new content,
    and never an empty file.
    """
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content if isinstance(content, bytes) else content.encode())
    new.rename(path)
