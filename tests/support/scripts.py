"""
Programs of a few lines of shell that stand for real ones.
"""

from pathlib import Path


def script(path: Path, body: str, shell: str = "/bin/sh") -> str:
    """
    Write a program, and return its path.
    """
    path.write_text(f"#!{shell}\n{body}\n")
    path.chmod(0o755)
    return str(path)
