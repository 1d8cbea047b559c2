"""The expected content of a target, computed only from the bucket and the contract."""

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from tests import Bodies, Texts

RESERVED = ".s3-sync"


class Expectation(NamedTuple):
    """The files that come from the bucket, and the keys that cannot become files."""

    files: Bodies
    """Relative path → content."""
    skipped: Texts
    """Relative path of a key → reason."""


def expect(
    objects: Mapping[str, bytes], key_path: str, foreign: Iterable[str] = ()
) -> Expectation:
    """
    Return the state of the target after a complete cycle.

    Args:
        objects: Key → content, the whole bucket.
        key_path: KEY_PATH without slashes around it.
        foreign: Relative paths of files that other processes put into the target, which
            no key has.
    """
    prefix = f"{key_path}/" if key_path else ""
    wanted = {}
    skipped = {}
    for key, content in objects.items():
        path = key.removeprefix(prefix)
        if not key.startswith(prefix) or path == "" or path.endswith("/"):
            continue
        reason = _refusal(path)
        if reason:
            skipped[path] = reason
        else:
            wanted[path] = content
    folders = {folder for path in wanted for folder in _folders(path)}
    skipped |= {path: "file_and_folder" for path in wanted if path in folders}
    skipped |= dict.fromkeys(
        (wanted.keys() - skipped.keys())
        & {folder for path in foreign for folder in _folders(path)},
        "blocked",
    )
    files = {path: content for path, content in wanted.items() if path not in skipped}
    return Expectation(files, skipped)


def _refusal(path: str) -> str | None:
    parts = path.split("/")
    if {"", ".", ".."} & set(parts) or "\0" in path:
        return "unsafe_path"
    if parts[0] == RESERVED:
        return "reserved"
    if len(parts) > 200:
        return "too_deep"
    if any(len(part.encode()) > 255 for part in parts):
        return "name_too_long"
    return None


def _folders(path: str) -> list[str]:
    """Return every folder above a path: `a/b/c` → `a`, `a/b`."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def read_tree(target: Path) -> Bodies:
    """
    Return the files of a target except s3-sync's own: relative path → content.

    Raises:
        AssertionError: An entry is neither file nor folder: a symlink, a socket.
    """
    tree = {}
    for folder, folders, names in os.walk(target):
        if Path(folder) == target and RESERVED in folders:
            folders.remove(RESERVED)
        for name in [*folders, *names]:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            assert stat.S_ISREG(mode) or stat.S_ISDIR(mode), (
                f"neither file nor folder: {path!r}"
            )
        for name in names:
            path = os.path.join(folder, name)
            tree[os.path.relpath(path, target)] = Path(path).read_bytes()
    return tree


def empty_folders(target: Path) -> list[str]:
    """Return the empty folders of a target, except `.s3-sync` and below."""
    return [
        os.path.relpath(folder, target)
        for folder, folders, names in os.walk(target)
        if not folders
        and not names
        and Path(folder) != target
        and RESERVED not in Path(folder).relative_to(target).parts
    ]


def difference(
    expected: Mapping[str, bytes], actual: Mapping[str, bytes]
) -> dict[str, tuple[bytes | None, bytes | None]]:
    """Return what is expected and what is there, for each path that differs."""
    return {
        path: (expected.get(path), actual.get(path))
        for path in expected.keys() | actual.keys()
        if expected.get(path) != actual.get(path)
    }


def leftovers(target: Path) -> list[str]:
    """
    Return unexpected entries of `.s3-sync` after a complete cycle, such as staged
    downloads.
    """
    ours = {"lock", "managed", "staging", "published.json", ".airflowignore"}
    hidden = target / RESERVED
    staged = [
        f"{RESERVED}/staging/{path.name}" for path in (hidden / "staging").iterdir()
    ]
    return staged + [
        f"{RESERVED}/{path.name}" for path in hidden.iterdir() if path.name not in ours
    ]
