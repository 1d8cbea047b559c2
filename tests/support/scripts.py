"""
Short shell programs that replace real ones.
"""

from pathlib import Path


def script(path: Path, body: str, shell: str = "/bin/sh") -> str:
    """
    Write an executable script and return its path.
    """
    path.write_text(f"#!{shell}\n{body}\n")
    path.chmod(0o755)
    return str(path)


def counting(path: Path, body: str) -> Path:
    """
    Write a script that counts its runs, and return its path.
    """
    return Path(script(path, f"echo x >>{path}.runs\n{body}"))


def runs(path: Path) -> int:
    """
    Return the number of runs of a counting script.
    """
    counted = Path(f"{path}.runs")
    return len(counted.read_text().split()) if counted.exists() else 0
