"""
Sealed files, which prove their own integrity, and a process that reads them.

A sealed file begins with one line, `<path> <version> <length of the rest> <sha256 of
the rest>`. The program, `python sealed.py TARGET`, reads files of a target at full
speed until its standard input closes, and then prints its observations as one line of
JSON.
"""

import hashlib
import json
import os
import random
import selectors
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

BLOCK_BYTES = 4_096


def seal(path: str, version: int, payload: bytes) -> bytes:
    """Return the content for a relative path without spaces."""
    digest = hashlib.sha256(payload).hexdigest()
    return f"{path} {version} {len(payload)} {digest}\n".encode() + payload


def flaw_of(content: bytes, path: str) -> str | None:
    """Return the flaw of a file's content, or None."""
    header, newline, payload = content.partition(b"\n")
    words = header.split(b" ")
    if not newline or len(words) != 4:
        return f"no header: {header[:80]!r}"
    if words[0] != path.encode():
        return f"content of {words[0]!r}"
    if int(words[2]) != len(payload):
        return f"{len(payload)} bytes instead of {int(words[2])}"
    if hashlib.sha256(payload).hexdigest().encode() != words[3]:
        return "mixed content"
    return None


@dataclass
class Observations:
    """The observations of one reader."""

    reads: int = 0
    versions: int = 0
    """How often a file had another version than at its previous read."""
    missing: int = 0
    """How often a file was missing when it was opened."""
    lost: list[str] = field(default_factory=list)
    """Files of `staying/` that were missing, although their keys are never deleted."""
    flaws: list[str] = field(default_factory=list)


def observe(target: Path) -> Observations:
    """Read files of a target in random order until standard input closes."""
    seen = Observations()
    versions: dict[str, bytes] = {}
    chance = random.Random(os.getpid())
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        staying = _paths(target / "staying", target)
        while not selector.select(0):
            paths = staying + _paths(target / "moving", target)
            chance.shuffle(paths)
            for path in paths:
                _read(target, path, seen, versions)
    return seen


def _paths(folder: Path, target: Path) -> list[str]:
    return [
        os.path.relpath(os.path.join(inner, name), target)
        for inner, _, names in os.walk(folder)
        for name in names
    ]


def _read(
    target: Path, path: str, seen: Observations, versions: dict[str, bytes]
) -> None:
    """Read one file block by block, as a slow reader does, and record flaws."""
    blocks = []
    try:
        with open(target / path, "rb", buffering=0) as file:
            while block := file.read(BLOCK_BYTES):
                blocks.append(block)
    except (FileNotFoundError, NotADirectoryError):
        seen.missing += 1
        if path.startswith("staying/"):
            seen.lost.append(path)
        return
    content = b"".join(blocks)
    seen.reads += 1
    flaw = flaw_of(content, path)
    if flaw:
        seen.flaws.append(f"{path}: {flaw}")
    version = content.partition(b"\n")[0]
    seen.versions += versions.get(path, version) != version
    versions[path] = version


if __name__ == "__main__":
    print(json.dumps(asdict(observe(Path(sys.argv[1])))))
